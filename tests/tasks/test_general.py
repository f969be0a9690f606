"""General requests: an independent parser finds no held-out request in training; pairs are ordered by quality."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from r1_lightning.tasks import general
from r1_lightning.tasks.general import NEEDS, GeneralPreferences, GeneralTask, quality_of
from r1_lightning.tasks.general_text import Needs, quality
from r1_lightning.text.language import language_of
from r1_lightning.text.reasoning_format import parse
from r1_lightning.text.response_parts import final_summary
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.text import Problem
from tests.support.shares import near

TASK, PAIRS = GeneralTask(), GeneralPreferences()
# Chinese words and their English ones, the reader's own list.
CHINESE = dict(
    pair.split(":")
    for pair in [
        "小安:Ann",
        "小波:Bob",
        "小春:Cid",
        "小丹:Dan",
        "小梅:Eve",
        "小飞:Fay",
        "小刚:Gus",
        "小雨:Ida",
        "小军:Jim",
        "小凯:Kay",
        "自行车:bike",
        "书:book",
        "灯:lamp",
        "地图:map",
        "船:boat",
        "钟:clock",
        "包:bag",
        "鼓:drum",
        "杯子:cup",
        "大衣:coat",
        "晚饭:dinner",
        "野餐:picnic",
        "音乐会:concert",
        "比赛:game",
        "聚会:party",
        "散步:walk",
        "周一:Monday",
        "周二:Tuesday",
        "周三:Wednesday",
        "周四:Thursday",
        "周五:Friday",
        "周六:Saturday",
        "罗马:Rome",
        "巴黎:Paris",
        "奥斯陆:Oslo",
        "开罗:Cairo",
        "利马:Lima",
        "德里:Delhi",
        "东京:Tokyo",
        "柏林:Berlin",
        "晴朗:sunny",
        "有风:windy",
        "下雨:rainy",
        "寒冷:cold",
        "温暖:warm",
        "有雾:foggy",
        "颜色:colours",
        "动物:animals",
        "水果:fruits",
        "工具:tools",
        "饮料:drinks",
    ]
)
DAYS = "周[一二三四五六]"
# What is asked, and what a complete reply says: (what, pattern, order of its groups).
READERS = (
    ("greet", r"Greet (\w+) and ask about the (\w+)", (0, 1)),
    ("greet", r"向(小.)问好，并问问(.+?)怎么样", (0, 1)),
    ("greet", r"Hello, (\w+)! How is the (\w+)\?", (0, 1)),
    ("greet", r"你好，(小.)！(\w+?)怎么样？", (0, 1)),
    ("thank", r"Thank (\w+) for the (\w+)\. A", (0, 1)),
    ("thank", r"感谢(小.)送的(\w+)", (0, 1)),
    ("thank", r"Thank you for the (\w+), (\w+)!", (1, 0)),
    ("thank", r"谢谢(小.)送的(\w+)！", (0, 1)),
    ("weather", r"It is (\w+) and (\w+) in (\w+) today", (2, 0, 1)),
    ("weather", r"今天(\w+)天气(\w+)，而且(\w+)。请", (0, 1, 2)),
    ("weather", r"Today in (\w+) the weather is (\w+) and (\w+)\.", (0, 1, 2)),
    ("weather", r"今天(\w+)的天气(\w+)，而且(\w+)。(?!请)", (0, 1, 2)),
    ("invite", r"Invite (\w+) to the (\w+) on (\w+)", (0, 1, 2)),
    ("invite", rf"邀请(小.)({DAYS})来(\w+)", (0, 2, 1)),
    ("invite", r"(\w+), come to the (\w+) on (\w+)!", (0, 1, 2)),
    ("invite", rf"(小.)，({DAYS})一起来(\w+)吧", (0, 2, 1)),
    ("list", r"Name (\d) (\w+)", (1, 0)),
    ("list", r"说出(\d)种(\w+)", (1, 0)),
)


def asked_or_said(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Every request that a text asks or carries out, in English words."""
    return {
        (kind, *(CHINESE.get(groups[place], groups[place]) for place in order))
        for text in texts
        for kind, pattern, order in READERS
        for groups in re.findall(pattern, text)
    }


def questions(problems: Iterable[Problem]) -> set[tuple[str, ...]]:
    return asked_or_said(problem.question + ". Assistant:" for problem in problems)


def test_the_reader_by_hand() -> None:
    for text in ("Greet Ann and ask about the book", "你好，小安！书怎么样？", "Gladly! Hello, Ann! How is the book?"):
        assert asked_or_said([text]) == {("greet", "Ann", "book")}
    assert asked_or_said(["小安，周一一起来晚饭吧！"]) == asked_or_said(["Invite Ann to the dinner on Monday"])
    assert asked_or_said(["今天罗马的天气寒冷，而且有风。"]) == {("weather", "Rome", "cold", "windy")}


def test_nothing_that_is_tested_was_ever_asked_or_done_in_training() -> None:
    held_out = TASK.held_out_problems(80)
    tested = questions(held_out)
    assert len(tested) == 80
    trained = asked_or_said(text for seed in (0, 1) for text in TASK.documents(seed, 0, 4_000))
    trained |= questions(TASK.train_problem(0, index) for index in range(2_000))
    items = PAIRS.training_items(0, 1_500)
    trained |= asked_or_said(text for pair in items for text in (pair.question + ". A", pair.chosen, pair.rejected))
    assert len(trained) > 600  # the reader does find what is there
    assert trained & tested == set()


def test_a_missing_split_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = questions(TASK.held_out_problems(80))
    monkeypatch.setattr(general, "may_train_on", lambda request: True)
    assert asked_or_said(TASK.documents(0, 0, 1_000)) & tested
    assert questions(Problem(p.question, "", "") for p in PAIRS.training_items(0, 500)) & tested


def test_held_out_pairs_are_about_held_out_requests() -> None:
    pairs = PAIRS.held_out_items(200)
    found = questions(Problem(pair.question, "", "") for pair in pairs)
    trained = questions(TASK.train_problem(0, index) for index in range(3_000))
    assert len(found) > 40 and found & trained == set()


def test_the_chosen_reply_is_better_by_the_rule() -> None:
    needs = {}
    for index in range(4_000):
        problem = TASK.train_problem(0, index)
        needs[problem.question] = (problem.metadata[NEEDS], problem.language)
    pairs = [pair for pair in PAIRS.training_items(0, 600) if pair.question in needs]
    assert len(pairs) > 300
    gaps = []
    for pair in pairs:
        stated, language = needs[pair.question]
        scores = [
            quality(Needs.from_json(stated), language, final_summary(text) or "")
            for text in (pair.chosen, pair.rejected)
        ]
        gaps.append(scores[0] - scores[1])
        assert parse(pair.chosen).well_formed == parse(pair.rejected).well_formed, "form does not tell them apart"
    assert min(gaps) >= general.MIN_QUALITY_GAP and max(gaps) == 1.0
    assert len({round(gap, 2) for gap in gaps}) > 5  # not only the best beside the worst
    assert sum(parse(pair.chosen).well_formed for pair in pairs) / len(pairs) == near(0.5, len(pairs))


def test_a_problem_s_answer_is_a_good_reply() -> None:
    for problem in [TASK.train_problem(2, index) for index in range(200)]:
        assert quality_of(problem, problem.answer) == 1.0 and language_of(problem.question) == problem.language
    with pytest.raises(InvalidInput, match="needs="):
        quality_of(Problem("What is 1+2", "3", "1,2"), "3")


def test_levels_and_what_is_said_in_the_corpus() -> None:
    assert {problem.level for problem in TASK.held_out_problems(60)} == {1, 2, 3}
    assert {GeneralTask(3, 3).train_problem(0, index).level for index in range(30)} == {3}
    answers = [text.partition("Assistant:")[2] for text in TASK.documents(0, 0, 2_000)]
    assert sum(parse(answer).well_formed for answer in answers) / 2_000 == near(0.3, 2_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeneralTask(min_level=0), "task.min_level=0"),
        (lambda: GeneralTask(max_level=4), "task.max_level=4"),
        (lambda: GeneralTask(wrong_share=1.5), "task.wrong_share=1.5"),
        (lambda: GeneralPreferences(min_level=4), "data.preferences.min_level=4"),
        (lambda: GeneralPreferences(min_level=2, max_level=1), "data.preferences.max_level=1"),
        (lambda: GeneralPreferences(reasoned_share=-1), "data.preferences.reasoned_share=-1"),
    ],
)
def test_bad_settings_are_named(make, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
