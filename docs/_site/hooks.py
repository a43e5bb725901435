"""What the site adds to a plain MkDocs build: pages that live outside docs/, links that lead there, two languages.

Every page's links are written for the place where its file lies in the repository, so that they work in any viewer of
the repository. Here each is looked up as a file and pointed at that file's place in the site.
"""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

log = logging.getLogger("mkdocs.hooks.mmha")
ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = ROOT / "docs", ROOT / "docs" / "zh"
PROJECT = {
    "README.md": "project/readme.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
}
"""Pages of the repository's root, and where they stand in the site."""
MODELS, EXAMPLES = {"Models", "模型"}, {"Examples", "示例"}
LINK = re.compile(r"(\]\(|src=\"|href=\")(?!\w+:|#|/)([^)\"#\s]+)((?:#[^)\"\s]*)?)(?=[)\"])")
LANGUAGE = re.compile(r"^\[(?:English|中文)\].*$", re.MULTILINE)  # the site has its own choice of language
FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
OUTSIDE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
UNTRANSLATED = '!!! note "本页尚无中文版"\n    以下为英文原文。\n\n'


def on_files(files: Files, config: Any) -> Files:
    """Take in the root's pages, in Chinese the English pages that have no twin, and whatever a page links to."""
    for name, uri in PROJECT.items():
        _add(files, config, uri, ROOT / (_twin(name) if _is_chinese(config) else name))
    if _is_chinese(config):
        for path in sorted(ENGLISH.rglob("*")):
            inner = path.relative_to(ENGLISH).as_posix()
            left_out = inner.startswith(("zh/", "_site/")) or path.suffix == ".py"
            if path.is_file() and not left_out and files.get_file_from_path(inner) is None:
                _add(files, config, inner, path)
    named = json.dumps(config.nav)
    sections = {title: pages for entry in config.nav if isinstance(entry, dict) for title, pages in entry.items()}
    for page in files.documentation_pages():  # what the navigation does not name stands with its like
        if f'"{page.src_uri}"' not in named:
            like = EXAMPLES if page.src_uri.startswith("examples/") else MODELS
            next(pages for title, pages in sections.items() if title in like).append(page.src_uri)
    waiting = list(files.documentation_pages())
    while waiting:
        for found in _targets(waiting.pop()):
            if found.is_file() and found not in _places(files) and _twin_of(found, config) not in _places(files):
                uri = f"source/{found.relative_to(ROOT).as_posix()}"
                added = _add(files, config, uri, found, InclusionLevel.NOT_IN_NAV)
                waiting += [added] if added.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at the site's files, and say where a page is not translated."""
    places = _places(files)
    source = Path(page.file.abs_src_path)

    def pointed(link: re.Match[str]) -> str:
        found = _resolve(source, link[2])
        found = found if found in places else _twin_of(found, config)
        if found not in places:
            log.warning("%s: %s leads to no file", page.file.src_uri, link[2])
            return link[0]
        return link[1] + os.path.relpath(places[found], Path(page.file.src_uri).parent) + link[3]

    parts = FENCE.split(LANGUAGE.sub("", markdown))
    text = "".join(part if FENCE.fullmatch(part) else LINK.sub(pointed, part) for part in parts)
    is_english = _is_chinese(config) and CHINESE not in source.parents and ".zh-CN" not in source.name
    if not is_english or page.file.src_uri.startswith("api/"):
        return text
    head, line, rest = text.partition("\n")
    return f"{head}{line}\n{UNTRANSLATED}{rest}"


def on_page_context(context: dict[str, Any], page: Any, config: Any, nav: Any) -> dict[str, Any]:
    """The choice of language leads to the same page."""
    other = "../" if _is_chinese(config) else "zh/"
    own, away = f"./{page.url}", f"{other}{page.url}"
    english, chinese = config.extra["alternate"]
    english["link"], chinese["link"] = (away, own) if _is_chinese(config) else (own, away)
    return context


def on_post_page(output: str, page: Any, config: Any) -> str:
    """A page asks no other host for anything, and its reference is there."""
    if "<p>::: " in output:
        log.warning("%s: a name of the reference was not looked up", page.file.src_uri)
    for asked in OUTSIDE.findall(output):
        log.warning("%s: would be fetched from elsewhere: %s", page.file.src_uri, asked)
    return output


def _is_chinese(config: Any) -> bool:
    return bool(config.theme["language"] == "zh")


def _twin(name: str) -> str:
    """README.zh-CN.md for README.md, where there is one."""
    translated = name.replace(".md", ".zh-CN.md")
    return translated if (ROOT / translated).exists() else name


def _twin_of(path: Path, config: Any) -> Path:
    """The page that stands in the Chinese site for an English one."""
    if _is_chinese(config) and path.is_relative_to(ENGLISH):
        return CHINESE / path.relative_to(ENGLISH)
    return path.with_name(_twin(path.name)) if _is_chinese(config) and path.parent == ROOT else path


def _add(files: Files, config: Any, uri: str, path: Path, inclusion: InclusionLevel = InclusionLevel.UNDEFINED) -> File:
    file = File.generated(config, uri, abs_src_path=str(path), inclusion=inclusion)
    files.append(file)
    return file


def _places(files: Files) -> dict[Path, str]:
    """The place in the site of every file of the repository that is in it."""
    return {Path(file.abs_src_path): file.src_uri for file in files if file.abs_src_path}


def _targets(page: File) -> list[Path]:
    source = Path(str(page.abs_src_path))
    text = LANGUAGE.sub("", FENCE.sub("", source.read_text(encoding="utf-8")))
    return [_resolve(source, link[2]) for link in LINK.finditer(text)]


def _resolve(source: Path, link: str) -> Path:
    return Path(os.path.normpath(source.parent / link))
