"""Distinguishes tags that open or close a block from tags that the thinking only mentions.

"I will put it in <answer> tags." A model that was asked for tags writes about them, and such a mention must cost neither the format
nor the accuracy reward. But training exploits every leniency, so a tag counts as mentioned only by these rules, all of them ours:

- only **within the thinking**: after the completion's first tag, an opening think tag followed by visible text, and before the
  tag that closes it. In unclosed thinking no tag counts as mentioned. `</think>` always ends the thinking, as it does for parsers
  of a server's text; it is a mention only in a pair `<think> </think>` with nothing or the words of the prompt between;
- only **in a context of mention**: preceded by a word such as "in", "the" or 用, or an opening quote; or followed by a word such as
  "tags" or 标签, a closing quote, punctuation, another tag, or the words of the prompt ("answer here");
- an **opening answer tag with a closing tag** later in the thinking is a mention only by the text that follows it: "in
  <answer>5</answer>" is an answer. So a second answer still counts as a second answer.

A mentioned tag is text. No reader looks for an answer in the thinking, so a mention cannot hide one.
"""

from __future__ import annotations

import re

Tag = tuple[str, int, int]  # text, start, end

_LONGEST_BEFORE = 24  # characters of the longest word below, with white space
_BEFORE = re.compile(
    r"(?:\b(?:in|into|inside|within|between|with|by|use|using|the|my|both|and|or|of|to|write|called|named|before|after"
    r"|open|opening|close|closing)\s+[`'\"]?"
    r"|[`'\"“‘「『(（]|(?:用|在|写|放|放进|放在|放入|把|的|和|与|或|到|个)\s*|</?(?:think|answer)>\s*|\bhere\s+)$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\s*(?:</?(?:think|answer)>|(?:tags?|blocks?|elements?|and|or|then)\b|标签|标记|里|中|之间|和|与|或"
    r"|(?:reasoning process|answer) here\b|[`'\"”’」』)）]|[,.;:!?…](?=\s|$|<)|[，。；：！？、])",
    re.IGNORECASE,
)
_VISIBLE = re.compile(r"\S")
_OF_PROMPT = re.compile(r"\s*(?:(?:and|or|reasoning process here|\.\.\.|…|和|与|或)\s*)?")


def real_tags(text: str, tags: list[Tag]) -> list[Tag]:
    """Return `tags` (all tags of `text`, in order) without those that are only mentioned. Linear in the length of `text`."""
    if not tags or tags[0][0] != "<think>":
        return tags
    visible = _VISIBLE.search(text, tags[0][2])
    stop, named = _end_of_thinking(text, tags, visible.start() if visible else len(text))
    if stop is None or visible is None:
        return tags
    closes = [place for place in range(stop) if tags[place][0] == "</answer>" and place not in named]
    last_close = closes[-1] if closes else -1
    in_block = False
    for place in range(1, stop):
        tag, start, end = tags[place]
        if place in named or start <= visible.start():
            continue
        if in_block and tag == "</answer>":
            in_block = False
        elif _AFTER.match(text, end) or (
            not (tag == "<answer>" and place < last_close)
            and _BEFORE.search(text[max(0, start - _LONGEST_BEFORE) : start])
        ):
            named.add(place)
        else:
            in_block = in_block or (tag == "<answer>" and place < last_close)
    return [tag for place, tag in enumerate(tags) if place not in named]


def _end_of_thinking(text: str, tags: list[Tag], visible: int) -> tuple[int | None, set[int]]:
    """Return the index of the tag that closes the thinking, and the indices of quoted pairs of think tags before it."""
    named: set[int] = set()
    for place in range(1, len(tags)):
        if tags[place][0] != "</think>" or place in named:
            continue
        tag, start, end = tags[place - 1]
        is_quoted = tag == "<think>" and start > visible and _OF_PROMPT.fullmatch(text, end, tags[place][1]) is not None
        if not is_quoted:
            return place, named
        named |= {place - 1, place}
    return None, named
