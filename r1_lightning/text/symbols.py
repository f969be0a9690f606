r"""Recognises mathematics and code in a text, which belong to no language; `text.language` counts the remaining words.

`3² + 4² = 25` reads the same in every language, and so do the letters in `三角形ABC` and `triangle ABC`. The kinds of symbols:

- **signs**: superscripts, subscripts, fractions, circled numbers, units in one character and letter-like signs (x², ½, ①, ㎝, ℝ);
  Greek letters, up to three in a row without an accent (πr², ΔABC); more are a Greek word;
- **styled letters** (bold, script, full-width) count as the plain letters: 𝑥 is a variable, 𝐚𝐧𝐬𝐰𝐞𝐫 a word;
- **names**: one to four capitals (ABC, AB=AC, LCM), capitals in the order of the alphabet (ABCDEF), Roman numerals. Capitals as
  long as words, and the common short words in capitals (THE, AND), are words; so is a line that is all in capitals;
- **functions, units, elements, compounds**: sin, max, mod, pi; cm; units that are words elsewhere (min, am) after a number; NaCl;
- **products**: up to three letters that touch a digit or an operator (2ab, xy=6), unless they are a common word (`so=`) or
  written as a person's name (`Ann=`);
- **formulas** between $, \( \), \[ \] or in an environment: commands, names of environments, and up to three letters in a row.
  Text in \text{} and similar commands counts as words, and so does a longer run: `$speed = 5$` contains an English word;
- **inline code** of one or two names; with three words in a row, or any Han character, it counts as prose;
- **fenced programs**, comments and strings included, closed or cut off. At least half of the lines with letters must be code, so
  that a fence around prose hides nothing. A line of code has a code character, or is a bare statement (`return x`), and has
  neither three words nor two Han characters in a row outside comments and strings.

Every pattern is possessive or bounded, so the time is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that are never a name or a product, in capitals or not.
SHORT_WORDS = _words(
    """a add all also am an and any are as at be but by can do does each else end for from get give go had has have he her here
    his how if in into is it its just let make may me my new next no not now of off ok on once one only or our out per put say
    see she so step sum take ten than that the them then they this thus to too two up us use very wait was way we well were what
    when will with yes yet you your"""
)
_FUNCTIONS = """sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp lim max min argmax argmin sup inf gcd lcm
    mod div det dim ker deg sgn sqrt abs floor ceil alpha beta gamma delta epsilon zeta eta theta lambda mu nu xi pi rho sigma tau
    phi chi psi omega Rt"""
_UNITS = """nm mm cm dm km kg mg ml mL dl dL cl cL kWh kW MW mW kJ kcal kHz MHz GHz Hz kPa MPa hPa kV mV mA kB MB GB TB km kmh mph
    rpm dB mmol"""
_ELEMENTS = "Na Mg Cl Ca Fe Cu Zn Ag Au Hg Pb Mn Cr Br"
_NAMES = _words(f"{_FUNCTIONS} {_UNITS} {_ELEMENTS} ii iii iv vi vii viii ix")
# Units after a number, words elsewhere.
_UNITS_AFTER_NUMBER = _words("min sec hr hrs ft lb lbs oz yd mi am pm mol rad deg Pa eV kt cc sq")

_ELEMENT = (
    "(?:A[cglmrstu]|B[aehikr]?|C[adeflmorsu]?|D[bsy]|E[rsu]|F[elmr]?|G[ade]|H[efgos]?|I[nr]?|K[r]?|L[airuv]|M[dgnot]?"
    "|N[abdeiop]?|O[s]?|P[abdmortu]?|R[abefghnu]|S[bceimnr]?|T[abceilm]|U|V|W|Xe|Y[b]?|Z[nr])"
)
_COMPOUND = re.compile(f"{_ELEMENT}{{2,}}")
_ROMAN = re.compile("M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_ALPHABETS = ("abcdefghijklmnopqrstuvwxyz", "αβγδεζηθικλμνξοπρστυφχψω")
_MAX_NAME, _MAX_PRODUCT, _MAX_GREEK = 4, 3, 3

_TAGS_AHEAD = "</?(?:think|answer)>"
_FENCED = re.compile(
    rf"```[ \t]*[\w+#.-]*[ \t]*((?:[^`<]|`(?!``)|(?!{_TAGS_AHEAD})<)*+)(?:```)?"
    rf"|^[ \t]*~~~[^\n~]*\n((?:[^~<]|~(?!~~)|(?!{_TAGS_AHEAD})<)*+)(?:~~~)?",
    re.MULTILINE,
)
_INLINE = re.compile(r"(?<!`)(`{1,2})(?!`)([^`\n]{1,200}+)\1(?!`)")
_ENVIRONMENT = (
    r"(?:align|aligned|alignat|equation|gather|gathered|cases|array|split|eqnarray|multline|[bBpvV]?matrix)\*?"
)
_FORMULA = re.compile(
    r"(?<!\\)\$\$([^$]++)\$\$"
    r"|(?<![\\$])\$(?![\s$])([^$\n]++)(?<![\s\\])\$(?!\d)"
    r"|\\\(((?:[^\\]|\\[^()])*+)\\\)"
    r"|\\\[((?:[^\\]|\\[^\[\]])*+)\\\]"
    rf"|\\begin\{{{_ENVIRONMENT}\}}((?:[^\\]|\\(?!begin\b|end\b))*+)\\end\{{{_ENVIRONMENT}\}}"
)
_WORDS_OF_FORMULA = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|hbox)\s*\{([^{}]*+)\}")
_NAMED = re.compile(r"\\(?:begin|end|operatorname\*?|color|textcolor|label|ref|tag)\s*\{[ -z|]*+\}(?:\{[clr|]*+\})?")
_COMMAND_OR_LETTERS = re.compile(r"\\?[A-Za-z]+")

_STRING_OR_COMMENT = re.compile(r"\"[^\"\n]*+\"|'[^'\n]*+'|(?:#|//).*+")
_CODE_SIGN = re.compile(r"[=()\[\]{};:<>+*/%&|]")
_KEYWORDS = _words(
    """and as assert async await auto bool boolean break by case catch char class const continue def default del delete do double
    elif else end enum except extends extern false final finally float fn for from function global go goto group having if
    implements import in include insert int interface into is join lambda let limit long match mut namespace new nil none not null
    of on or order package pass print private protected pub public raise return select self set short signed sizeof static str
    string struct super switch table template then this throw throws true try type typedef unsigned update use using values var
    void volatile where while with yield"""
)
# A line of code without a code character is short and begins with one of these.
_STATEMENTS = _words("break continue else from import package pass raise return try using yield end do begin")
_MAX_BARE = 5
_SPOKEN = re.compile(r"[A-Za-z]{2,}+(?:,? [A-Za-z]{2,}+)*+")
_HAN_PAIR = re.compile(r"[\u4e00-\u9fff]{2}")
_HAN = re.compile(r"[\u3400-\u9fff]")
_SHOUTED = re.compile(r"(?<![A-Za-z'])[A-Z']++(?:[ ,.!?]{1,2}[A-Z']++)+")


def _table() -> dict[int, str]:
    """Return the replacement of special characters: ^ for super- and subscripts, a space for signs, plain for styled letters."""
    made = {}
    for first, last in ((0xA0, 0xFF), (0x2B0, 0x2FF), (0x1D2C, 0x1DBF), (0x2070, 0x209C)):
        for code in range(first, last + 1):
            if unicodedata.decomposition(chr(code)).startswith(("<super>", "<sub>", "<fraction>")):
                made[code] = "^"
    for first, last in ((0x2100, 0x218F), (0x2460, 0x24FF), (0x2776, 0x2793), (0x3200, 0x33FF), (0x1F100, 0x1F1FF)):
        made |= dict.fromkeys(range(first, last + 1), " ")
    for first, last in ((0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A), (0xFB00, 0xFB06), (0x1D400, 0x1D7FF)):
        made |= {code: unicodedata.normalize("NFKC", chr(code)) for code in range(first, last + 1)}
    return made | {0xB5: "μ"}


_TABLE = _table()
_RAISED_LETTERS = re.compile(
    f"[{''.join(chr(code) for code, to in _TABLE.items() if to == '^' and code > 0x2AF)}]{{4,}}+"
)


def without_symbols(text: str) -> str:
    """Replace signs, formulas and code in `text` by a space or a `^`; words in all-capital lines become lower case."""
    if not text.isascii():
        text = _RAISED_LETTERS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text).translate(_TABLE)
    text = _FENCED.sub(_without_program, text)
    text = _INLINE.sub(_without_inline, text)
    text = _FORMULA.sub(_without_formula, text)
    return _SHOUTED.sub(lambda match: match[0].lower() if _is_shouted(match[0]) else match[0], text)


def is_symbol(text: str, start: int, end: int) -> bool:
    """True if the run of Latin letters text[start:end], inner apostrophes included, is a name, unit, product or formula."""
    letters = text[start:end].replace("'", "").replace("’", "")
    if letters in _NAMES or _in_alphabet(letters):
        return True
    if letters.isupper() and letters.isascii():
        is_word = len(letters) > 2 and letters.lower() in SHORT_WORDS
        return not is_word and (len(letters) <= _MAX_NAME or _ROMAN.fullmatch(letters) is not None)
    if letters in _UNITS_AFTER_NUMBER and text[max(0, start - 2) : start].rstrip(" \u00a0")[-1:].isdigit():
        return True
    is_short = len(letters) <= _MAX_PRODUCT and letters.lower() not in SHORT_WORDS
    if is_short and not letters.istitle() and _touches_operator(text, start, end):
        return True
    return sum(map(str.isupper, letters)) > 1 and len(letters) < 40 and _COMPOUND.fullmatch(letters) is not None


def is_greek_symbol(letters: str) -> bool:
    """True if a run of Greek letters is a product of variables, not a word."""
    plain = all(unicodedata.decomposition(letter) == "" for letter in letters)
    return plain and (len(letters) <= _MAX_GREEK or _in_alphabet(letters))


def _in_alphabet(letters: str) -> bool:
    """True for four or more consecutive letters of the alphabet in one case: `ABCDEF`, `wxyz`, `αβγδ`."""
    one_case = letters.isupper() or letters.islower()
    return len(letters) > _MAX_PRODUCT and one_case and any(letters.lower() in alphabet for alphabet in _ALPHABETS)


def _touches_operator(text: str, start: int, end: int) -> bool:
    operators = "=+^_*×÷·≤≥≠≈√∠△"  # < and > also close tags
    before = text[start - 1] if start > 0 else " "
    return before.isdigit() or before in operators or text[end : end + 1] in tuple(operators)


def _is_shouted(run: str) -> bool:
    words = [word for word in re.findall("[A-Z]+", run.replace("'", "")) if len(word) > 1]
    long = [word for word in words if len(word) > _MAX_NAME and not _in_alphabet(word) and not _ROMAN.fullmatch(word)]
    short = [word for word in words if word.lower() in SHORT_WORDS]
    return bool(long) or len(short) > 1 or (bool(short) and len(words) > 2)


def _without_program(match: re.Match[str]) -> str:
    body = match[1] if match[1] is not None else match[2]
    return "\n\n" if is_program(body) else f"\n{body}\n"


def is_program(body: str) -> bool:
    """True if at least half of the lines of `body` with letters are code."""
    lines = [line for line in body.splitlines() if any(map(str.isalpha, line))]
    return 2 * sum(map(_is_code, lines)) >= len(lines)


def _is_code(line: str) -> bool:
    bare = _STRING_OR_COMMENT.sub(" ", line)
    if longest_phrase(bare) > 2 or _HAN_PAIR.search(bare):
        return False
    words = re.findall(r"\w+", bare)
    return bool(_CODE_SIGN.search(bare)) or (words[:1] != [] and words[0] in _STATEMENTS and len(words) < _MAX_BARE)


def longest_phrase(line: str) -> int:
    """Return the longest run of words with only a space or comma between them; keywords of programs do not count."""
    longest = 0
    for phrase in _SPOKEN.findall(line):
        row = 0
        for word in phrase.replace(",", "").split():
            row = 0 if word.lower() in _KEYWORDS else row + 1
            longest = max(longest, row)
    return longest


def _without_inline(match: re.Match[str]) -> str:
    body = match[2]
    return f" {body} " if longest_phrase(body) > 2 or _HAN.search(body) else " "


def _without_formula(match: re.Match[str]) -> str:
    body = next(group for group in match.groups() if group is not None)
    pieces = _WORDS_OF_FORMULA.split(body)  # every second piece is words
    pieces[::2] = [_COMMAND_OR_LETTERS.sub(_long_word, _NAMED.sub(" ", piece)) for piece in pieces[::2]]
    return f" {' '.join(pieces)} "


def _long_word(match: re.Match[str]) -> str:
    run = match[0]
    is_word = not run.startswith("\\") and (len(run) > _MAX_PRODUCT or run in SHORT_WORDS)
    return run if is_word else " "
