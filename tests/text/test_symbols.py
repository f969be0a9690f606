"""Mathematics and code of many kinds, which belong to no language, each with texts that only look like it."""

from __future__ import annotations

import time

import pytest

from r1_lightning.text.language import count_words, is_mixed, language_share
from r1_lightning.text.symbols import is_greek_symbol, is_program, is_symbol, longest_phrase, without_symbols

ENGLISH = {
    "superscripts": [
        "We know x² + y² = 25 so the radius is 5 and the area is 25π square units.",
        "So 3² + 4² = 9 + 16 = 25, hence c = 5.",
        "Then 2ⁿ⁺¹ is twice 2ⁿ, and x⁻¹ is its inverse.",
        "The 1ˢᵗ and the 2ⁿᵈ term are equal.",
        "Note that 10⁶ is a million and m³ a volume.",
        "Hence (a+b)³ = a³ + 3a²b + 3ab² + b³ holds.",
        "Both e⁻ᵏᵗ and kᵗʰ powers decay.",
    ],
    "subscripts": [
        "Let a₁ = 2 and aₙ = 3aₙ₋₁ for all n.",
        "The points x₁, x₂ and x_max lie on it.",
        "So log₂8 = 3 and log₁₀ 100 = 2.",
        "We write v₀ for the first speed and v_avg for the mean.",
        "Water is H₂O, and sulfuric acid is H₂SO₄.",
    ],
    "fractions and signs": [
        "Half of ½ is ¼, and ⅔ of it is left.",
        "Since ∀ε>0 ∃δ>0, the limit exists.",
        "Let x ∈ ℝ and n ∈ ℕ, where ℤ ⊂ ℚ.",
        "Step ① gives ⅷ, step ② gives № 5.",
        "The ratio is ⅓ and the heat is 20℃.",
        "So ℜ(z) = 1, ℏ is small, and ℵ₀ is not.",
    ],
    "Greek letters": [
        "The area is πr² and the circumference 2πr.",
        "If α + β = 90°, then sin α = cos β.",
        "So Δx = λ/2 and ΔABC is right.",
        "Let θ be the angle and ω the speed.",
        "Then αβγ = 1 and μ = 0, σ² = 1.",
        "The sum Σ of all φ is 2π rad.",
    ],
    "letters of another shape": [
        "Let 𝑥 be a number and 𝐀 a matrix.",
        "The set 𝒮 has 𝑛 elements.",
        "For ｘ＝２ we get ＡＢ＝４.",
        "If 𝔼[X] = 0 then 𝕍[X] = 1.",
        "Both 𝜋 and 𝑒 are irrational.",
    ],
}
CHINESE = {
    "names": [
        "在三角形ABC中，AB=AC，所以角B等于角C。",
        "正六边形ABCDEF内接于圆O，OA=OB。",
        "四边形A'B'C'D'与四边形ABCD相似。",
        "因为△ABC≌△DEF（SAS），所以BC=EF。",
        "设Rt△ABD的面积是S，则2S=AB·BD。",
        "由SSS得全等，LCM是12，GCD是4。",
        "五边形PQRST的周长为20。",
    ],
    "Roman numerals": ["第XVIII题", "情形(ii)与情形(iii)", "第II类和第IV类", "解法VIII最短", "二战即WWII", "第ⅷ组"],
    "functions": [
        "因为sin30=1/2，cos60=1/2",
        "所以max(a,b)-min(a,b)=3",
        "求lim x→0的值，log 8等于3",
        "12 mod 5余2，gcd(4,6)是2",
        "面积是25pi，角theta为直角",
        "arctan 1和sqrt 2都要算",
    ],
    "units": [
        "长为12cm，面积为36cm²",
        "速度是60km/h，重5 kg",
        "过了15 min，水有300mL",
        "边长3㎝，房间20㎡，高5dm",
        "频率是50Hz，能量10kJ",
        "上午9 am出发，下午5pm到",
        "电压220 V，用电3kWh",
    ],
    "chemistry": [
        "NaCl和H2O反应",
        "CO2与Ca(OH)2生成CaCO3",
        "Fe3O4中Fe的质量",
        "加入NaOH和KMnO4",
        "C6H12O6是葡萄糖，CH3COOH是醋酸",
        "Na在Cl2中燃烧",
    ],
    "products": ["设xy=12，则2xy=24", "因为3ab+c=0", "长方形的面积ab=6", "若ax²+bx+c=0", "由mgh=½mv²得", "10xy的系数"],
    "formulas": [
        r"若 $\triangle ABC$ 的周长为 $2ab+c$",
        r"求 \[\frac{ab}{cd}\] 的值",
        r"即 \(xyz \neq 0\) 时",
        r"有 $$\begin{cases} ab = 1 \\ cd = 2 \end{cases}$$ 成立",
        "解\\begin{align*} xy &= 1 \\\\ yz &= 2 \\end{align*}得",
        r"$\operatorname{lcm}(ab, cd)$等于$\mathrm{kg}$",
        r"$x=\text{苹果的数量}$与$2ab$",
        r"四位数$\overline{abcd}$",
    ],
    "inline code": [
        "变量`total`是总和",
        "调用`print(x)`输出",
        "令`left = 0`",
        "用`for item in items`遍历",
        "`numpy array`很快",
        "即``ab``",
    ],
    "programs": [
        "先写程序：\n```python\ndef total(numbers):\n    result = 0\n    for number in numbers:\n        result += number\n"
        "    return result\n```\n然后返回结果。",
        "代码：```python\nprint('hello world, how are you')\n```完成",
        "如下\n```cpp\n#include <vector>\npublic static void run(int speed) {\n    return;\n}\n```",
        "如下\n~~~sql\nSELECT name FROM people WHERE age > 3;\n~~~\n即可",
        "没写完\n```python\n# count the even numbers of the list\nfor value in values:\n    if value % 2 == 0:\n        count += 1",
        "如下\n```js\nconst sum = items.map(item => item.price);\n```",
    ],
}


@pytest.mark.parametrize("text", [text for texts in ENGLISH.values() for text in texts])
def test_mathematics_in_english_text_is_in_no_language(text: str) -> None:
    assert language_share(text, "en") == 1.0 and not is_mixed(text)
    assert count_words(text)["en"] > 1


@pytest.mark.parametrize("text", [text for texts in CHINESE.values() for text in texts])
def test_mathematics_and_code_in_chinese_text_are_in_no_language(text: str) -> None:
    assert language_share(text, "zh") == 1.0 and not is_mixed(text)
    assert count_words(text)["zh"] > 0


@pytest.mark.parametrize(
    ("text", "en", "zh", "other"),
    [
        ("我们 think 再算", 1, 4, 0),
        ("所以 THE 答案是4", 1, 5, 0),  # a short word in capitals is no name
        ("SO THE NEXT STEP IS 五", 5, 1, 0),  # shouted: IS is no segment here
        ("WE GET AB=5 和", 2, 1, 0),  # and AB is a name beside them
        ("先算 ANSWER", 1, 2, 0),
        ("首先so=5", 1, 2, 0),  # no product
        ("x and-5 都是", 1, 2, 0),
        ("Ann=5 比较大", 1, 3, 0),  # a person
        ("We let x² be 平方", 3, 2, 0),
        ("𝐚𝐧𝐬𝐰𝐞𝐫 是四", 1, 2, 0),  # bold letters are letters
        ("ᵃⁿˢʷᵉʳ 是四", 1, 2, 0),  # and so are six raised ones
        ("ａｎｓｗｅｒ 是四", 1, 2, 0),
        ("先算 Καλημέρα", 0, 2, 1),  # a Greek word
        ("The sum και x", 2, 0, 0),  # three Greek letters are a product: the bound is what it is
        ("The sum μαζί", 2, 0, 1),
        ("答案 $speed=5$", 1, 2, 0),  # an English word in a formula
        (r"$\text{if } x>0$ 所以", 1, 2, 0),
        (r"we have $\text{苹果}=3$", 2, 2, 0),
        ("先算 $I think so or not$", 4, 2, 0),
        ("we get $所以$", 2, 2, 0),
        ("It costs $5 and 苹果 $7", 3, 2, 0),  # dollars enclose no formula
        ("`平方` is what we take", 4, 2, 0),
        ("先算 `I think we add them` 再算", 4, 4, 0),
        ("```\nI think we should first add the numbers\nthen multiply them by two\n``` 所以", 12, 2, 0),
        ("```\n所以答案是四\n``` we have", 2, 6, 0),
        ("```python\nx = 1\n# first we add\n# then we multiply\n``` 所以", 6, 2, 0),  # more prose than code
        ("```\nx = 1\n</think> 所以 and so on", 3, 2, 0),  # a fence that is cut off ends with its block
        ("no 我", 1, 1, 0),
        ("In 5 min you 走", 2, 1, 0),
        ("the min 值", 1, 1, 0),  # a function
        ("итак x² = 4", 0, 0, 1),
    ],
)
def test_what_only_looks_like_mathematics_is_counted(text: str, en: int, zh: int, other: int) -> None:
    assert count_words(text) == {"en": en, "zh": zh, "other": other}


def test_runs_are_told_apart_by_what_stands_beside_them() -> None:
    assert is_symbol("5 min", 2, 5) is True and is_symbol("a mi", 2, 4) is False
    assert is_symbol("2ab", 1, 3) and not is_symbol("ab", 0, 2)
    assert is_symbol("NaHCO", 0, 5) and not is_symbol("NaHello", 0, 7)
    assert is_greek_symbol("αβγδ") and not is_greek_symbol("και\u03b7") and not is_greek_symbol("ή")
    assert longest_phrase("for number in numbers") == 1 and longest_phrase("public static void run the code") == 3


def test_a_program_is_known_by_most_of_its_lines() -> None:
    assert is_program("x = 1\nreturn x") and is_program("")
    assert is_program("x = 1\n# a comment of many words") and not is_program("x = 1\n# one comment more\n# than code")
    assert not is_program("We take the sum (of both) = 5")


def test_a_text_without_symbols_is_left_as_it_is() -> None:
    for text in ("First add the tens.", "先算十位：12+30=42。", "It costs $5 or $10."):
        assert without_symbols(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "`",
        "``",
        "```",
        "~~~",
        "$",
        "$$a",
        "\\(",
        "\\[",
        "\\begin{align}",
        "A' ",
        "AB ",
        "{",
        "\\text{",
        "Ca",
        "ᵃ",
        "x=",
    ],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    start_s = time.perf_counter()
    count_words(piece * 100_000)
    assert time.perf_counter() - start_s < 3
