"""What stands in the sections of docs/fmri.md in English and in Chinese, for fmri_section.py."""

from __future__ import annotations

from words import Words

ENGLISH: Words = {
    "stage_1": "`python benchmarks/fmri_stage_1.py --all`, Haxby's slice, {run[steps]} steps of {run[rows]} sentences, "
    "{run[epochs]:.0f} passes, {precision}, {run[processor_seconds]} s of one core; {total:,} hidden values of voxels "
    "that were not trained on. The rows below the first change one thing each.",
    "hidden": "| | within 25 steps | root of mean squared error | of the mean's | nats |",
    "exact": "The exact value is found in at most {share:.1f} % of cases by any row.",
    "haxby": "`make bench-fmri`, {run[steps]} steps of stage 1, 64 sentences each, {run[epochs]} epochs of stage 2 "
    "({run[longer]} times as many on the smoothed voxels, whose numbers are a sixth as many).{published}",
    "published": " The published size was trained for {steps} steps of 64 sentences; its error on hidden values is "
    "then {error:.3f}, faithful {faithful:.3f}, and {small:.3f} of `small`.",
    "courses": "| Pearson's r, mean of eight curves | fitted | held out | beyond timing | first two runs held out |",
    "decision": "What decided on logarithms and on the number of epochs: r in runs 3 to 6, two at a time, of stage 2 "
    "fitted to the rest of runs 3 to 12. Runs 1 and 2 had no part in it.",
    "epochs": "{count} epochs",
    "looks": "Where [CLS] looks in the last layer: how many of {volumes} volumes (exp of the entropy), what share of "
    "the variance of log w the volume's number in its run explains (place), and after it the value itself; and R² of a "
    "voxel's own smoothed signal from its heads' features (one regression for all voxels, the place taken out).",
    "looked": "| weights of stage 1 | volumes | place | value | R² from log w | R² from w |",
    "blocks": "Which of 8 kinds of pictures a block shows, by the mean of its volumes (chance 12.5 %, 96 blocks):",
    "decoded": "| | one run left out | two runs left out |",
    "simulation": "Stage 1 of {made[steps]} steps, {made[epochs]} epochs; all of `make bench-fmri` takes about "
    "{minutes} minutes of one core.",
    "networks": "| | r | overlap | r of maps | {tasks} |",
}
CHINESE: Words = {
    "stage_1": "`python benchmarks/fmri_stage_1.py --all`，Haxby 的切片，{run[steps]} 步，每步 {run[rows]} 个句子，"
    "{run[epochs]:.0f} 遍，{precision}，一个核 {run[processor_seconds]} 秒；没有用于训练的体素的 {total:,} 个隐藏值。"
    "第一行之下的各行各改变一处。",
    "hidden": "| | 相差 25 级以内 | 均方根误差 | 与均值的误差之比 | nats |",
    "exact": "任何一行恰好找到值的情形都不超过 {share:.1f} %。",
    "haxby": "`make bench-fmri`，第一阶段 {run[steps]} 步，每步 64 个句子，第二阶段 {run[epochs]} 个轮次"
    "（平滑后的体素为其 {run[longer]} 倍，它们的数只有六分之一）。{published}",
    "published": "published 大小训练了 {steps} 步，每步 64 个句子；它在隐藏值上的误差为 {error:.3f}，faithful 为 "
    "{faithful:.3f}，`small` 为 {small:.3f}。",
    "courses": "| Pearson 的 r，八条曲线的平均 | 拟合 | 留出 | 时刻之外 | 留出最前两次扫描 |",
    "decision": "用来决定取对数和轮次数的：第二阶段在第 3 至 12 次扫描的其余部分上拟合时，第 3 至 6 "
    "次扫描中的 r，每次两次扫描。第 1、2 次扫描没有参与。",
    "epochs": "{count} 个轮次",
    "logarithms": "对数",
    "weights": "权重",
    "looks": "[CLS] 在最后一层看向何处：{volumes} 个体积中的多少个（熵的 exp），体积在扫描中的编号说明 log w "
    "方差的多大份额（位置），其后值本身说明多少；以及由各头的特征得出体素自己的平滑信号的 R²（所有体素一个回归，"
    "去掉位置）。",
    "looked": "| 第一阶段的权重 | 体积 | 位置 | 值 | log w 的 R² | w 的 R² |",
    "blocks": "一个块显示 8 类图片中的哪一类，由其体积的平均判断（随机为 12.5 %，96 个块）：",
    "decoded": "| | 留出一次扫描 | 留出两次扫描 |",
    "simulation": "第一阶段 {made[steps]} 步，{made[epochs]} 个轮次；整个 `make bench-fmri` 约用一个核 {minutes} "
    "分钟。",
    "networks": "| | r | 重叠 | 图的 r | {tasks} |",
    "**`small`, windows of {}, a sentence a run**": "**`small`，窗口 {}，一次扫描一个句子**",
    "the same, `--steps {}` ({} passes, {} s of one core)": "同上，`--steps {}`（{} 遍，一个核 {} 秒）",
    "all runs in one sentence (`--whole --rows {}`), of which other places are hidden": "所有扫描排成一个句子"
    "（`--whole --rows {}`），隐藏的是其他位置",
    "`--plain-start` (without shares and heads that look beside)": "`--plain-start`（没有份额，也没有看旁边的头）",
    "`--window {}` (attention over the whole run)": "`--window {}`（注意力遍及整次扫描）",
    "`--faithful` (as the released code)": "`--faithful`（与发布的代码相同）",
    "`--blocks` (blocks of the task hidden whole)": "`--blocks`（整块隐藏任务的块）",
    "least squares on four neighbours": "四个邻值的最小二乘",
    "mean of both neighbours": "两个邻值的平均",
    "the value before": "前一个值",
    "the commonest value (the mean)": "最常见的值（均值）",
    "MAMSM, weights and not their logarithms, as published": "MAMSM，用权重而不是其对数，如论文",
    "MAMSM of the published size": "published 大小的 MAMSM",
    "MAMSM of the published size, `faithful=True`": "published 大小的 MAMSM，`faithful=True`",
    "without stage {}: its weights as they are drawn": "没有第 {} 阶段：刚抽取的权重",
    "the same, weights and not their logarithms": "同上，用权重而不是其对数",
    "stage {} on the smoothed voxels themselves": "第 {} 阶段直接用平滑后的体素",
    "shuffled events, r with the shuffled curves": "打乱的事件，与打乱的曲线的 r",
    "without the cosine, best of {} time courses": "没有余弦，{} 条时间进程中最好的",
    "ridge regression on MAMSM's features": "对 MAMSM 的特征作岭回归",
    "the same, weights as published": "同上，用权重，如论文",
    "the same, without stage {}": "同上，没有第 {} 阶段",
    "the same, without stage {}, weights as published": "同上，没有第 {} 阶段，用权重，如论文",
    "ridge regression on the voxels": "对体素作岭回归",
    "ridge regression on the smoothed voxels": "对平滑后的体素作岭回归",
    "ICA (FastICA), best of {}": "ICA（FastICA），{} 条中最好的",
    "ICA, best of {}": "ICA，{} 条中最好的",
    "dictionary learning, best of {}": "字典学习，{} 条中最好的",
    "no data: the mean curve at each volume's number": "没有数据：每个体积编号处的平均曲线",
    "as drawn": "刚抽取的",
    "trained": "训练过的",
    "of the published size, trained": "published 大小，训练过的",
    "of the published size, faithful, trained": "published 大小，faithful，训练过的",
    "ridge on the voxels": "对体素作岭回归",
    "ridge on the smoothed voxels": "对平滑后的体素作岭回归",
    "ridge on MAMSM's features": "对 MAMSM 的特征作岭回归",
    "ridge on {} time courses: MAMSM": "对 {} 条时间进程作岭回归：MAMSM",
    "ridge on {} time courses: without stage {}": "对 {} 条时间进程作岭回归：没有第 {} 阶段",
    "ridge on {} time courses: stage {} on the smoothed voxels themselves": "对 {} 条时间进程作岭回归："
    "第 {} 阶段直接用平滑后的体素",
    "ridge on {} time courses: without the cosine": "对 {} 条时间进程作岭回归：没有余弦",
    "without stage {}": "没有第 {} 阶段",
    "without the cosine": "没有余弦",
    "Lasso on the design's curves themselves": "直接对设计的曲线用 Lasso",
    "emotion": "情绪",
    "gambling": "赌博",
    "language": "语言",
    "motor": "运动",
    "relational": "关系",
    "social": "社会",
    "working memory": "工作记忆",
}
