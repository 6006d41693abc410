"""One raw value in, one clean value out.

Every cleaner is pure and idempotent, keeps what it returns storable in a Postgres `text` column (no NUL, no lone
surrogate), and raises nothing but `ValueError`.

They run once a field on millions of records. Where a library decides what is right but is too slow for that, a short
way answers the usual values exactly as the library would, and leaves all others to it.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Final

import phonenumbers
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, NumberParseException, PhoneMetadata, PhoneNumberFormat
from phonenumbers.phonemetadata import PhoneNumberDesc

# --- email -----------------------------------------------------------------------------------------------------------

LONGEST_EMAIL: Final = 254
"""Characters: RFC 5321 4.5.3.1.3, RFC 3696 erratum 1690."""

# The usual address, a subset of what the library accepts and returns unchanged: an ASCII dot-atom, then host labels
# without a double hyphen (that is Punycode's), then a top-level domain that is not reserved.
_ATOM = r"[a-z0-9_!#$%&'*+\-/=?^`{|}~]+"
_LABEL = r"[a-z0-9]+(?:-[a-z0-9]+)*"
_RESERVED = "|".join(sorted({re.escape(name.rpartition(".")[2]) for name in SPECIAL_USE_DOMAIN_NAMES}))
_USUAL_EMAIL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+(?!(?:{_RESERVED})\Z)[a-z]{{2,}}")
_NO_LABEL_TOO_LONG: Final = 63  # an address this short cannot hold a host label over DNS's 63 characters


def clean_email(raw: str) -> str:
    """Trim and lower-case an address, and check its form; nothing is looked up.

    The local part is lower-cased too: RFC 5321 lets a host tell `Ann@` from `ann@`, no mail provider does, and one
    person must not become two. Internationalised addresses are stored in Unicode NFC, their domains as people write
    them (`ann@bücher.example`, also when it came as `xn--bcher-kva`). `example.com` and `.test` are accepted, since
    sources hold them; `.invalid`, `.local`, `.localhost`, `.onion` and `.arpa` are not, for no mail ever arrives there.

    Raises ValueError saying what is wrong: no @-sign, a forbidden character, a quoted local part, an IP address or a
    dotless name as domain, more than 254 characters.
    """
    email = raw.strip().lower()
    if len(email) <= _NO_LABEL_TOO_LONG and _USUAL_EMAIL.fullmatch(email):
        return email
    return _validated_email(email)


def _validated_email(email: str) -> str:
    """What the library makes of a trimmed, lower-case address."""
    if len(email) > LONGEST_EMAIL:
        raise ValueError(f"expected an email address of at most {LONGEST_EMAIL} characters, got {len(email)}")
    try:
        # test_environment is what the library calls accepting the top-level domain `test`
        valid = validate_email(email, check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        raise ValueError(f"expected an email address like name@example.com: {error}") from error
    if "." not in valid.domain:
        raise ValueError("expected an email address like name@example.com: there is no period after the @-sign")
    return valid.normalized


# --- phone -----------------------------------------------------------------------------------------------------------

_LONGEST_USUAL_PHONE: Final = 40
_WITHOUT_PUNCTUATION = str.maketrans("", "", " ().-/")
_MAIN_REGION = {str(code): regions[0] for code, regions in COUNTRY_CODE_TO_REGION_CODE.items()}


def clean_phone(raw: str, country: str | None) -> str | None:
    """A phone number in E.164 (`+442079460018`), or None where it is not a valid number.

    `country` (ISO 3166 alpha-2, in any case) is where a number written without `+` is dialled from; with None or an
    unknown code only an international number can be read. A leading `00` means `+`, wherever the plan of the country
    does not give it another sense. Valid means that the number lies in a range that the country has assigned,
    according to the metadata of `phonenumbers`. E.164 has no extension: one that is there is dropped.

    Never raises.
    """
    if len(raw) <= _LONGEST_USUAL_PHONE:
        digits = raw.translate(_WITHOUT_PUNCTUATION)
        if digits.isascii():
            usual = None
            if digits[:1] == "+" and digits[1:].isdigit():
                usual = _international(digits[1:])
            elif country is not None and digits.isdigit():
                usual = _dialled_from(country, digits)
            if usual is not None:
                return usual
    return _parsed_phone(raw, country)


def _parsed_phone(raw: str, country: str | None) -> str | None:
    """What the library makes of a number."""
    region = country.upper() if country else None
    text = raw.strip()
    for written in (text, "+" + text[2:]) if text.startswith("00") else (text,):
        try:
            number = phonenumbers.parse(written, region)
        except NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return None


@dataclass(frozen=True, slots=True)
class _Plan:
    """A region's numbering plan, read from the library's metadata."""

    calling_code: str
    international_prefix: re.Pattern[str] | None
    trunk_prefix: re.Pattern[str] | None
    rewrites: bool  # the trunk prefix is replaced, not dropped, where its last group matched
    national: re.Pattern[str]
    longest: int


@cache
def _plan(region: str) -> _Plan | None:
    """The plan of a region; None for an unknown one."""
    metadata = PhoneMetadata.metadata_for_region(region)
    if metadata is None or (general := metadata.general_desc) is None:
        return None
    trunk = metadata.national_prefix_for_parsing
    return _Plan(
        calling_code=str(metadata.country_code),
        international_prefix=re.compile(metadata.international_prefix) if metadata.international_prefix else None,
        trunk_prefix=re.compile(trunk) if trunk else None,
        rewrites=bool(metadata.national_prefix_transform_rule),
        national=re.compile(_shape(general)),
        longest=max(general.possible_length + general.possible_length_local_only),
    )


@cache
def _assigned(calling_code: str) -> list[tuple[re.Pattern[str] | None, re.Pattern[str]]]:
    """The regions that share a calling code, in the library's order: leading digits (where they tell), numbers."""
    regions = []
    for region in COUNTRY_CODE_TO_REGION_CODE[int(calling_code)]:
        metadata = PhoneMetadata.metadata_for_region(region)
        if metadata is None or metadata.general_desc is None:
            continue
        numbers = rf"(?={_shape(metadata.general_desc)}\Z)(?:{'|'.join(_shapes_of_types(metadata))})"
        leading = re.compile(metadata.leading_digits) if metadata.leading_digits else None
        regions.append((leading, re.compile(numbers)))
    return regions


def _shapes_of_types(metadata: PhoneMetadata) -> Iterator[str]:
    for description in (
        metadata.fixed_line,
        metadata.mobile,
        metadata.toll_free,
        metadata.premium_rate,
        metadata.shared_cost,
        metadata.voip,
        metadata.personal_number,
        metadata.pager,
        metadata.uan,
        metadata.voicemail,
    ):
        if description is not None and description.national_number_pattern:
            yield _shape(description)


def _shape(description: PhoneNumberDesc) -> str:
    """The regular expression of a kind of number: its pattern, in one of its lengths."""
    lengths = "|".join(rf"\d{{{length}}}" for length in description.possible_length if length > 0)
    return rf"(?=(?:{lengths})\Z)(?:{description.national_number_pattern})"


def _international(digits: str) -> str | None:
    """The number of these digits after `+`, or None where the library has to look."""
    for length in (1, 2, 3):
        if region := _MAIN_REGION.get(digits[:length]):
            plan = _plan(region)
            return _national(digits[length:], plan) if plan else None
    return None


def _dialled_from(country: str, digits: str) -> str | None:
    """The number that these digits reach from a country, or None where the library has to look."""
    plan = _plan(country)
    if plan is None:
        return None
    if plan.international_prefix and (prefix := plan.international_prefix.match(digits)):
        return _international(digits[prefix.end() :])
    if digits.startswith(plan.calling_code) and not plan.national.fullmatch(digits):
        # a calling code without its plus, or a short number that only looks so
        rest = digits[len(plan.calling_code) :]
        if len(digits) <= plan.longest or (plan.trunk_prefix and plan.trunk_prefix.match(rest)):
            return None
        return _international(digits)
    return _national(digits, plan)


def _national(digits: str, plan: _Plan) -> str | None:
    """The number of these digits within a plan, with or without its trunk prefix, or None as above."""
    if plan.trunk_prefix and (prefix := plan.trunk_prefix.match(digits)):
        digits = digits[prefix.end() :]
        if (plan.rewrites and prefix[prefix.re.groups] is not None) or not plan.national.fullmatch(digits):
            return None
    for leading, numbers in _assigned(plan.calling_code):
        if leading is None:
            if numbers.fullmatch(digits):
                return f"+{plan.calling_code}{digits}"
        elif leading.match(digits):
            return f"+{plan.calling_code}{digits}" if numbers.fullmatch(digits) else None
    return None


# --- name ------------------------------------------------------------------------------------------------------------

# Words that begin with a capital and go on with a small letter, in letters that NFC leaves alone.
_NAME_WORD = r"[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ][A-Za-zÀ-ÖØ-öø-ÿ'.-]*"
_USUAL_NAME = re.compile(rf"{_NAME_WORD}(?: {_NAME_WORD})*")

_JOINERS: Final = "\u200c\u200d"  # format characters that Persian and Indic names are spelled with
_PARTICLES = frozenset(
    "'s 't ’s ’t af al av bin binti da das de del della den der des di"
    " do dos du el ibn la le ten ter van vom von zu zum zur".split()
)
_AS_WRITTEN = {"e", "y"}  # `Ortega y Gasset`, `John E Smith`: a conjunction or an initial, only the writer knows
_UPPER_CASE = {"II", "III", "IV", "VII", "VIII", "IX", "MD", "DDS", "DVM", "CPA", "MBA"}  # VI and XI are names too
_INITIAL = re.compile(r"""(?:^|(?<=[-‐‑–./,;&("“«]))(?:(?:[^\W\d_]|dell|dall)?['’`ʼ]+)?[^\W\d_ʼ]""")
_MAC = (
    "adam alister allister arthur askill aulay beth callum cormack donald donnell dougall duff eachern ewan fadyen"
    " farlane gillivray gregor innes intosh intyre iver kinnon kintosh lachlan laren lean leay lellan lennan leod"
    " millan nab namara naughton neil neill nicol phail phee pherson quarrie rae taggart tavish vicar whirter"
).replace(" ", "|")
_SCOTTISH = re.compile(rf"\b(Mc(?=[^\W\d_]{{2}})|Mac(?=(?:{_MAC})\b))([^\W\d_])")


def clean_name(raw: str) -> str:
    """A person's name: trimmed, single spaces, in Unicode NFC, and in title case where its case says nothing.

    Only words that are all upper or all lower case change: `Van Dyke`, `McDonald` and `DiCaprio` stay as written.

    - A capital begins the word, each part of a hyphenated or dotted one, and what follows `O'`, `D'`, `Dell'` or `Mc`;
      after `Mac` only in surnames known to have it, so `MacLeod` but `Mack`, `Macey`, `Machado`.
    - Particles (`van der`, `de la`, `bin`) are small inside a name, capital as its first or last word: `Anna van Dam`,
      `Van Dam`, `Tran Thi Le`. `y` and `e` inside a name stay as written.
    - Roman numerals and degrees that follow a name are upper case: `Henry VIII`, `Ann Lee MD`.

    Control characters (NUL too), lone surrogates and invisible format characters (byte order marks, zero-width spaces,
    direction marks) are dropped; the joiners U+200C and U+200D, which are spelling, stay. No character is added but the
    other case of one that was there. The result may be empty. Never raises.
    """
    if _USUAL_NAME.fullmatch(raw):
        return raw
    return _spelled_name(raw)


def _spelled_name(raw: str) -> str:
    """`clean_name` in full, for any text."""
    text = raw
    if not text.isascii() or not text.isprintable():
        text = unicodedata.normalize("NFC", "".join(filter(_is_storable, raw)))
    words = text.split()
    last = len(words) - 1
    for position, word in enumerate(words):
        if word.isupper() or word.islower():
            words[position] = _cased(word, first=position == 0, inside=0 < position < last)
    return unicodedata.normalize("NFC", " ".join(words))


def _is_storable(character: str) -> bool:
    if character.isspace() or character in _JOINERS:
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs")


def _cased(word: str, *, first: bool, inside: bool) -> str:
    """A word of one case, as it is written at its place in a name."""
    small = word.lower().replace("ŉ", "ʼn")  # one character in small, two as a capital; Unicode deprecates the one
    if inside and small in _PARTICLES:
        return small
    if inside and small in _AS_WRITTEN:
        return word
    if not first and (large := word.upper()) in _UPPER_CASE:
        return large
    capitalised = _INITIAL.sub(lambda match: match[0].title(), small)
    return _SCOTTISH.sub(lambda match: match[1] + match[2].title(), capitalised)


# --- date and time ---------------------------------------------------------------------------------------------------

EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
"""The first moment that `parse_datetime` believes."""
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""The first moment after those that `parse_datetime` believes."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_SECONDS: Final = 10**8
_LEAST_MILLISECONDS: Final = 10**11
_NUMBER = re.compile(r"-?[0-9]{9,}(?:\.[0-9]+)?")
_DATE_END = ("", "T", "t", " ")
# RFC 1123 and RFC 5322: a four-digit year, and a zone that is a number or means UTC
_RFC_1123 = re.compile(
    r"(?:[A-Z]{3}, ?)?[0-9]{1,2} [A-Z]{3} [0-9]{4} [0-9]{2}:[0-9]{2}(?::[0-9]{2})? (?:GMT|UTC?|Z|[+-][0-9]{4})",
    re.IGNORECASE,
)
_DAY_OR_MONTH_FIRST = re.compile(r"[0-9]{1,2}([/.-])[0-9]{1,2}\1(?:[0-9]{4}|[0-9]{2})\b.*", re.DOTALL)


def parse_datetime(raw: str | int | float | Decimal | datetime | date) -> datetime:
    """The moment that an API means, as an aware datetime in UTC.

    Read are, with a time zone or else as UTC:

    - ISO 8601 extended (`2025-01-02T03:04:05.678+01:00`, also with a space for the T), basic (`20250102T030405Z`), date
      alone (midnight); a fraction of more than six digits is cut to microseconds
    - RFC 1123 dates, as HTTP and mail send them: `Thu, 02 Jan 2025 03:04:05 GMT`
    - a Unix time, as number or as text: 12 or 13 digits are milliseconds, 9 or 10 seconds (either sign, a fraction may
      follow). Shorter ones, which are years, compact dates or placeholders rather than moments of 1966 to 1973, and
      longer ones are an error
    - a datetime or a date

    Raises ValueError where `raw` is none of these, names a day that does not exist, lies outside 1900 to 2199, or may
    be read in two ways (`03/04/2025`); a bool is an error too.
    """
    if type(raw) is str:
        moment = _written_moment(raw)
    else:
        match raw:
            case datetime():
                moment = raw
            case date():
                moment = datetime.combine(raw, time())
            case int() | float() | Decimal() if raw is not True and raw is not False:
                moment = _unix_moment(Decimal(raw))
            case str():
                moment = _written_moment(raw)
            case _:
                raise ValueError(f"expected a date and time, got {raw!r:.40}")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if not EARLIEST <= moment < LATEST:
        raise ValueError(f"expected a date and time from 1900 to 2199, got {raw!r:.40}")
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _written_moment(raw: str) -> datetime:
    text = raw.strip()
    try:
        moment = _moment_in_a_known_form(text)
    except ValueError as error:
        raise _unreadable(text) from error
    if moment is None:
        raise _unreadable(text)
    return moment


def _moment_in_a_known_form(text: str) -> datetime | None:
    # Digits alone go before fromisoformat, which takes any character between date and time: 13 of them may pass.
    if text[4:5] == "-" and text[10:11] in _DATE_END:
        return _iso_moment(text)
    if _NUMBER.fullmatch(text):
        return _unix_moment(Decimal(text))
    if text[8:9] in _DATE_END:
        return _iso_moment(text)
    if _RFC_1123.fullmatch(text):
        return parsedate_to_datetime(text)
    return None


def _unreadable(text: str) -> ValueError:
    if _DAY_OR_MONTH_FIRST.fullmatch(text):
        return ValueError(f"expected the year first (2025-04-03): {text!r:.40} may have the day or the month in front")
    return ValueError(
        f"expected a date and time in ISO 8601 or RFC 1123, or a Unix time of 9 or more digits, got {text!r:.40}"
    )


def _iso_moment(text: str) -> datetime:
    # RFC 3339 allows the small z; " UTC" is what several languages print
    return datetime.fromisoformat(text.replace(" UTC", "Z").replace("z", "Z"))


def _unix_moment(number: Decimal) -> datetime:
    """The moment so many seconds, or milliseconds, after 1970; parts of a microsecond are rounded."""
    if number.is_finite() and -(10**13) < number < 10**13:
        size = abs(number)
        if size >= _LEAST_MILLISECONDS:
            return _EPOCH + timedelta(microseconds=round(number * 1_000))
        if _LEAST_SECONDS <= size < 10**10:
            return _EPOCH + timedelta(microseconds=round(number * 1_000_000))
    raise ValueError(
        f"expected a Unix time of 9 or 10 digits (seconds), or 12 or 13 (milliseconds), got {number!s:.40}"
    )
