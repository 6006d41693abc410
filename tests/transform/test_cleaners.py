"""Each cleaner on named examples, on realistic values and on anything at all."""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime

import pendulum
import phonenumbers
import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES
from faker import Faker
from hypothesis import example, given
from hypothesis import strategies as st
from phonenumbers import PhoneMetadata, PhoneNumberFormat

from include.transform import cleaners
from include.transform.cleaners import EARLIEST, LATEST, clean_email, clean_name, clean_phone, parse_datetime

any_text = st.text(st.characters(exclude_categories=()))
"""Every character that a str can hold: NUL and lone surrogates too."""


def storable(text: str) -> bool:
    return "\0" not in text and text.encode("utf-8", errors="replace").decode() == text


class TestCleanEmail:
    @pytest.mark.parametrize(
        ("raw", "clean"),
        [
            ("ann@example.com", "ann@example.com"),
            ("  Ann.Lee+News@Example.COM \n", "ann.lee+news@example.com"),
            ("\u3000ann@example.com\u00a0", "ann@example.com"),
            ("ann@mail.test", "ann@mail.test"),
            ("o'brien@ex-ample.co.uk", "o'brien@ex-ample.co.uk"),
            ("info@a-very-long-name-that-goes-on-and-on-and-on.sub.department.example.com",) * 2,
            ("ann@bücher.example", "ann@bücher.example"),
            ("ann@BÜCHER.example", "ann@bücher.example"),
            ("ann@xn--bcher-kva.example", "ann@bücher.example"),
            ("jose\u0301@example.com", "jos\u00e9@example.com"),
            ("用户@例え.jp", "用户@例え.jp"),
        ],
    )
    def test_accepts(self, raw: str, clean: str) -> None:
        assert clean_email(raw) == clean

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("", "must have an @-sign"),
            ("ann.example.com", "must have an @-sign"),
            ("@example.com", "something before the @-sign"),
            ("ann@", "something after the @-sign"),
            ("ann@example", "should have a period"),
            ("ann@test", "no period after the @-sign"),
            ("ann..lee@example.com", "two periods in a row"),
            ("ann lee@example.com", "invalid characters before the @-sign: SPACE"),
            ("ann@exa_mple.com", "invalid characters: '_'"),
            ("ann@-example.com", "hyphen immediately after the @-sign"),
            ("ann@example.c0", "not within a valid top-level domain"),
            ("ann@example.invalid", "special-use or reserved name"),
            ("ann@office.local", "special-use or reserved name"),
            ("ann@10.in-addr.arpa", "special-use or reserved name"),
            ('"ann lee"@example.com', "Quoting"),
            ("ann@[127.0.0.1]", "bracketed IP address"),
            ("Ann Lee <ann@example.com>", "display name"),
            ("ann@example.com, bob@example.com", "invalid characters"),
            ("an\0n@example.com", re.escape("U+0000")),
            ("an\ud800n@example.com", re.escape("U+D800")),
            ("a" * 64 + "@" + "b" * 64 + ".com", "cannot be separated by so many characters"),
            ("a" * 300 + "@example.com", "at most 254 characters, got 312"),
        ],
    )
    def test_refuses_saying_why(self, raw: str, reason: str) -> None:
        with pytest.raises(ValueError, match=reason) as refusal:
            clean_email(raw)
        assert str(refusal.value).startswith("expected an email address")
        assert len(str(refusal.value)) < 300

    def test_the_short_way_answers_as_the_library_on_realistic_addresses(self) -> None:
        fake = Faker(["en_US", "en_GB", "de_DE", "fr_FR", "ja_JP", "es_ES"], use_weighting=False)
        fake.seed_instance(7)
        for _ in range(2_000):
            raw = fake.email()
            assert clean_email(raw) == cleaners._validated_email(raw.lower())

    @given(
        st.one_of(
            st.from_regex(cleaners._USUAL_EMAIL, fullmatch=True),
            st.emails(),
            st.text("ab0_.-+'@ xn", max_size=80),
            st.builds("{}@{}.{}".format, st.text("a.-", min_size=1), st.text("ab-.", min_size=1), st.text("cot1")),
            st.sampled_from(sorted(SPECIAL_USE_DOMAIN_NAMES)).map("a@b.{}".format),
        )
    )
    def test_the_short_way_answers_as_the_library(self, raw: str) -> None:
        def result(clean: Callable[[str], str], value: str) -> str:
            try:
                return clean(value)
            except ValueError as refusal:
                return f"refused: {refusal}"

        assert result(clean_email, raw) == result(cleaners._validated_email, raw.strip().lower())

    @given(st.one_of(any_text, st.builds("{}@{}.com".format, any_text, any_text), st.emails()))
    @example("İ@example.com")
    @example("ΟΔΟΣ@ΟΔΟΣ.example")
    @example("ﬀ@ﬀ.example")
    @example("a\u0345\u0301@example.com")
    def test_is_idempotent_and_raises_nothing_but_value_error(self, raw: str) -> None:
        try:
            clean = clean_email(raw)
        except ValueError:
            return
        assert clean_email(clean) == clean
        assert storable(clean)


def written_forms(number: phonenumbers.PhoneNumber) -> list[str]:
    significant = phonenumbers.national_significant_number(number)
    national, international, e164 = (
        phonenumbers.format_number(number, form)
        for form in (PhoneNumberFormat.NATIONAL, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164)
    )
    return [
        e164,
        national,
        international,
        significant,
        e164.removeprefix("+"),
        "00" + e164.removeprefix("+"),
        "011" + e164.removeprefix("+"),
        f"+{number.country_code} (0) {significant}",
        f"1-{significant}",
        national + " ext. 12",
        "tel:" + e164,
    ]


@st.composite
def phones(draw: st.DrawFn) -> tuple[str, str]:
    """A number near to a region's examples, in one of the forms that people write, and the region."""
    region = draw(st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)))
    metadata = PhoneMetadata.metadata_for_region(region)
    assert metadata is not None
    kinds = [metadata.fixed_line, metadata.mobile, metadata.toll_free, metadata.premium_rate, metadata.uan]
    digits = draw(st.sampled_from([kind.example_number for kind in kinds if kind and kind.example_number]))
    kept = draw(st.integers(1, len(digits)))
    digits = digits[:kept] + draw(st.text("0123456789", min_size=len(digits) - kept, max_size=len(digits) - kept + 1))
    number = phonenumbers.PhoneNumber(
        country_code=metadata.country_code, national_number=int(digits), italian_leading_zero=digits.startswith("0")
    )
    return draw(st.sampled_from(written_forms(number))), region


class TestCleanPhone:
    @pytest.mark.parametrize(
        ("raw", "country", "clean"),
        [
            ("020 7946 0018", "GB", "+442079460018"),
            ("(020) 7946-0018", "gb", "+442079460018"),
            ("+44 (0)20 7946 0018", None, "+442079460018"),
            ("0044 20 7946 0018", "FR", "+442079460018"),
            ("0044 20 7946 0018", "US", "+442079460018"),  # dialled 011 there, yet 00 has no other sense
            ("0044 20 7946 0018", None, "+442079460018"),
            ("011 44 20 7946 0018", "US", "+442079460018"),
            ("442079460018", "GB", "+442079460018"),
            ("(201) 555-0123", "US", "+12015550123"),
            ("1.201.555.0123", "US", "+12015550123"),
            ("201-555-0123 x99", "US", "+12015550123"),
            ("416 555 0123", "US", "+14165550123"),  # Toronto: the same plan
            ("06 12 34 56 78", "FR", "+33612345678"),
            ("030 123456", "DE", "+4930123456"),
            ("02 1234 5678", "IT", "+390212345678"),  # Italy keeps the zero
            ("011 15-2345-6789", "AR", "+5491123456789"),  # Argentina's mobile rewrite
            ("\uff0b\uff14\uff14 20 7946 0018", None, "+442079460018"),
            ("020 7946 0018", None, None),
            ("020 7946 0018", "", None),
            ("020 7946 0018", "ZZ", None),
            ("020 7946 0018", "United Kingdom", None),
            ("+44 20 7946 0018", "nonsense", "+442079460018"),
            ("0000000000", "US", None),
            ("12345", "US", None),
            ("+1", None, None),
            ("+", "US", None),
            ("00", "GB", None),
            ("011", "US", None),
            ("", "US", None),
            ("n/a", "US", None),
            ("+999 123456789", "US", None),
            ("²" * 10, "US", None),
            ("9" * 10_000, "US", None),
        ],
    )
    def test_examples(self, raw: str, country: str | None, clean: str | None) -> None:
        assert clean_phone(raw, country) == clean

    @pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
    def test_every_region_in_every_form_as_the_library(self, region: str) -> None:
        number = phonenumbers.example_number(region)
        assert number is not None
        e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
        assert clean_phone(e164, None) == e164
        for written in written_forms(number):
            assert clean_phone(written, region) == cleaners._parsed_phone(written, region), written

    def test_realistic_numbers_as_the_library(self) -> None:
        locales = {"US": "en_US", "GB": "en_GB", "DE": "de_DE", "FR": "fr_FR", "IT": "it_IT", "BR": "pt_BR"}
        valid = 0
        for country, locale in locales.items():
            fake = Faker(locale)
            fake.seed_instance(7)
            for _ in range(300):
                raw = fake.phone_number()
                clean = clean_phone(raw, country)
                assert clean == cleaners._parsed_phone(raw, country), (raw, country)
                valid += clean is not None
        assert valid > 900

    @given(phones(), st.sampled_from(["its own", None, "US", "IT", "KZ", "ZZ"]))
    def test_generated_numbers_as_the_library(self, phone: tuple[str, str], dialled_from: str | None) -> None:
        raw, region = phone
        country = region if dialled_from == "its own" else dialled_from
        clean = clean_phone(raw, country)
        assert clean == cleaners._parsed_phone(raw, country)
        if clean is not None:
            assert re.fullmatch(r"\+[1-9][0-9]{3,16}", clean)  # the library knows numbers of Germany with two too many
            assert clean_phone(clean, country) == clean
            assert clean_phone(clean, None) == clean

    @given(
        st.one_of(any_text, st.text("+0123456789 ().-x"), st.from_regex(r"\+?[0-9 ()-]{5,15}", fullmatch=True)),
        st.one_of(st.none(), any_text, st.sampled_from(["US", "GB", "DE", "IT", "BR", "AU", "001"])),
    )
    def test_never_raises_and_answers_as_the_library(self, raw: str, country: str | None) -> None:
        clean = clean_phone(raw, country)
        assert clean == cleaners._parsed_phone(raw, country)
        assert clean is None or clean_phone(clean, country) == clean


def letters(text: str) -> str:
    """What two spellings that differ in case and composition only have in common."""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


class TestCleanName:
    @pytest.mark.parametrize(
        ("raw", "clean"),
        [
            ("Ann Lee", "Ann Lee"),
            ("  ann \t LEE\n", "Ann Lee"),
            ("ann\u00a0\u3000\u2009lee", "Ann Lee"),
            ("O'BRIEN", "O'Brien"),
            ("pat o'brien", "Pat O'Brien"),
            ("SEÁN O’NEILL", "Seán O’Neill"),
            ("GIOVANNI DELL'ACQUA", "Giovanni Dell'Acqua"),
            ("SA'ID", "Sa'id"),
            ("McDonald", "McDonald"),
            ("RONALD MCDONALD", "Ronald McDonald"),
            ("MACLEOD", "MacLeod"),
            ("macleod", "MacLeod"),
            ("MacLeod", "MacLeod"),
            ("Macleod", "Macleod"),
            ("MACK", "Mack"),
            ("MACEY", "Macey"),
            ("MACHADO", "Machado"),
            ("MC", "Mc"),
            ("JAN VAN DER BERG", "Jan van der Berg"),
            ("van der berg", "Van der Berg"),
            ("Jan Van Der Berg", "Jan Van Der Berg"),
            ("JAN VAN 'T HOFF", "Jan van 't Hoff"),
            ("MARIA DE LA CRUZ", "Maria de la Cruz"),
            ("TRAN THI LE", "Tran Thi Le"),
            ("José Ortega y Gasset", "José Ortega y Gasset"),
            ("JOHN E SMITH", "John E Smith"),
            ("Leonardo DiCaprio", "Leonardo DiCaprio"),
            ("Jean DUPONT", "Jean Dupont"),
            ("JOSE\u0301", "Jos\u00e9"),
            ("josé", "José"),
            ("Jose\u0301", "Jos\u00e9"),
            ("王", "王"),
            (" 王  小明 ", "王 小明"),
            ("محمد", "محمد"),
            ("ANNE-MARIE", "Anne-Marie"),
            ("anne-marie smith-mcdonald", "Anne-Marie Smith-McDonald"),
            ("JOHN SMITH JR.", "John Smith Jr."),
            ("HENRY VIII", "Henry VIII"),
            ("john smith iii", "John Smith III"),
            ("Ann Lee MD", "Ann Lee MD"),
            ("XI JINPING", "Xi Jinping"),
            ("J.R.R. TOLKIEN", "J.R.R. Tolkien"),
            ("İSTANBULLU", "İstanbullu"),
            ("ΝΙΚΟΣ", "Νικος"),
            ("ЁЛКИНА", "Ёлкина"),
            ('BOB "THE BUILDER"', 'Bob "The Builder"'),
            ("\ufeffann\0 l\x07e\u200be\ud800", "Ann Lee"),
            ("ann\x1flee", "Ann Lee"),
            ("می\u200cخواهم", "می\u200cخواهم"),
            ("", ""),
            (" \0 ", ""),
        ],
    )
    def test_examples(self, raw: str, clean: str) -> None:
        assert clean_name(raw) == clean

    @given(
        st.one_of(
            any_text,
            st.text("aAbBéÉ'’-. \u0301ßŉİΣσყდ\u200c\0"),
            st.from_regex(cleaners._USUAL_NAME, fullmatch=True),
            st.lists(st.sampled_from(["van", "DE", "y", "E", "iii", "MD", "mcx", "MACLEOD", "o'b", "Le", "李"])).map(
                " ".join
            ),
        )
    )
    @example("ŉ b")
    @example("’ŉ")
    @example("ŉ’a")
    @example("ΐβ")
    def test_is_idempotent_storable_and_invents_nothing(self, raw: str) -> None:
        clean = clean_name(raw)
        assert clean == cleaners._spelled_name(raw)
        assert clean_name(clean) == clean
        assert storable(clean)
        assert unicodedata.is_normalized("NFC", clean)
        assert clean == " ".join(clean.split())
        dropped = ("Cc", "Cf", "Cs")
        kept = "".join(c for c in raw if c.isspace() or c in "\u200c\u200d" or unicodedata.category(c) not in dropped)
        assert letters("".join(clean.split())) == letters("".join(kept.split()))

    def test_the_short_way_answers_as_the_long_one_on_realistic_names(self) -> None:
        fake = Faker(["en_US", "de_DE", "fr_FR", "es_ES", "nl_NL", "ja_JP"], use_weighting=False)
        fake.seed_instance(7)
        unchanged = 0
        for _ in range(2_000):
            name = fake.name()
            assert clean_name(name) == cleaners._spelled_name(name)
            unchanged += clean_name(name) == name
        assert unchanged > 1_900


MOMENT = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


class TestParseDatetime:
    @pytest.mark.parametrize(
        ("raw", "moment"),
        [
            ("2025-01-02T03:04:05Z", MOMENT),
            ("2025-01-02t03:04:05z", MOMENT),
            ("  2025-01-02 03:04:05\n", MOMENT),
            ("2025-01-02 03:04:05 UTC", MOMENT),
            ("2025-01-02T04:04:05+01:00", MOMENT),
            ("2025-01-02 04:04:05 +0100", MOMENT),
            ("2025-01-01T22:34:05-04:30", MOMENT),
            ("2025-01-02T03:04", MOMENT.replace(second=0)),
            ("2025-01-02T03:04:05.1Z", MOMENT.replace(microsecond=100_000)),
            ("2025-01-02T03:04:05,123456Z", MOMENT.replace(microsecond=123_456)),
            ("2025-01-02T03:04:05.123456789Z", MOMENT.replace(microsecond=123_456)),
            ("20250102T030405Z", MOMENT),
            ("2025-01-02", datetime(2025, 1, 2, tzinfo=UTC)),
            ("20250102", datetime(2025, 1, 2, tzinfo=UTC)),
            ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
            ("Thu, 02 Jan 2025 03:04:05 GMT", MOMENT),
            ("2 Jan 2025 05:04:05 +0200", MOMENT),
            (1735787045, MOMENT),
            (1735787045000, MOMENT),
            ("1735787045", MOMENT),
            (" 1735787045123 ", MOMENT.replace(microsecond=123_000)),
            ("1735787045.5", MOMENT.replace(microsecond=500_000)),
            (1735787045.123, MOMENT.replace(microsecond=123_000)),
            (Decimal("1735787045.000001"), MOMENT.replace(microsecond=1)),
            (Decimal("1735787045000.001"), MOMENT.replace(microsecond=1)),
            ("1611120112230", datetime(2021, 1, 20, 5, 21, 52, 230_000, tzinfo=UTC)),  # not 1 December 1611, 22:30
            (-1735787045, datetime(1914, 12, 30, 20, 55, 55, tzinfo=UTC)),
            (100_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
            (100_000_000_000, datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)),
            (datetime(2025, 1, 2, 3, 4, 5), MOMENT),  # noqa: DTZ001 - a naive one is what is tested
            (datetime(2025, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1))), MOMENT),
            (pendulum.datetime(2025, 1, 2, 4, 4, 5, tz="Europe/Vienna"), MOMENT),
            (date(2025, 1, 2), datetime(2025, 1, 2, tzinfo=UTC)),
            ("1900-01-01T00:00:00Z", EARLIEST),
            ("2199-12-31T23:59:59.999999Z", LATEST - timedelta(microseconds=1)),
        ],
    )
    def test_reads(self, raw: str | float | Decimal | datetime | date, moment: datetime) -> None:
        parsed = parse_datetime(raw)
        assert parsed == moment
        assert parsed.utcoffset() == timedelta(0)

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            ("03/04/2025", "the day or the month in front"),
            ("3.4.25", "the day or the month in front"),
            ("03-04-2025 10:00", "the day or the month in front"),
            ("13/04/2025", "the day or the month in front"),
            ("2025/04/03", "expected a date and time in ISO 8601"),
            ("", "expected a date and time in ISO 8601"),
            ("yesterday", "expected a date and time in ISO 8601.* got 'yesterday'"),
            ("2025", "Unix time of 9 or more digits, got '2025'"),
            ("2025-02-30", "got '2025-02-30'"),
            ("2025-01-02T25:00:00Z", "got '2025-01-02T25:00:00Z'"),
            ("2025-01-02x03:04:05", "got '2025-01-02x03:04:05'"),
            ("2025-01-02T03:04:05+01:00 UTC", "expected a date and time in ISO 8601"),
            ("Thu, 32 Jan 2025 03:04:05 GMT", "RFC 1123"),
            ("Thu, 02 Jan 2025 03:04:05 CET", "RFC 1123"),
            ("Thursday, 02-Jan-25 03:04:05 GMT", "RFC 1123"),
            ("1899-12-31T23:59:59Z", "from 1900 to 2199"),
            ("2200-01-01T00:00:00Z", "from 1900 to 2199"),
            ("0001-01-01T00:00:00+05:00", "from 1900 to 2199"),
            ("9999-12-31T23:59:59-05:00", "from 1900 to 2199"),
            (0, "9 or 10 digits .*, got 0"),
            (20250102, "9 or 10 digits .*, got 20250102"),
            (1735787045123456, "12 or 13 .milliseconds., got 1735787045123456"),
            ("1735787045123456", "9 or more digits, got '1735787045123456'"),
            (-62_135_596_801, "9 or 10 digits"),
            (99_999_999_999, "9 or 10 digits"),
            (9_999_999_999, "from 1900 to 2199"),
            (float("nan"), "got NaN"),
            (float("-inf"), "got -Infinity"),
            (Decimal("sNaN"), "got sNaN"),
            (Decimal("1e1000000"), "got 1E"),
            (True, "got True"),
            (None, "got None"),
            (["2025-01-02"], "expected a date and time, got"),
        ],
    )
    def test_refuses_saying_why(self, raw: str | float | Decimal, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            parse_datetime(raw)

    @given(
        st.datetimes(
            datetime(1900, 1, 2),  # noqa: DTZ001 - hypothesis takes naive bounds
            datetime(2199, 12, 30),  # noqa: DTZ001 - as above
            timezones=st.timezones().filter(lambda zone: not zone.key.startswith("right/")),
        )
    )
    def test_reads_what_is_written_in_any_form(self, moment: datetime) -> None:
        utc = moment.astimezone(UTC)
        whole = utc.replace(microsecond=0)
        assert parse_datetime(moment) == utc
        assert parse_datetime(moment.isoformat()) == utc
        assert parse_datetime(utc.strftime("%Y-%m-%d %H:%M:%S.%f")) == utc
        assert parse_datetime(utc.strftime("%Y%m%dT%H%M%SZ")) == whole
        assert parse_datetime(format_datetime(whole)) == whole
        assert parse_datetime(format_datetime(whole, usegmt=True)) == whole
        assert parse_datetime(pendulum.instance(utc).to_iso8601_string()) == utc

    @given(st.one_of(st.integers(-(10**13), 10**13), st.integers(8, 14).map(lambda e: 10**e - 1)), st.booleans())
    @example(-62_135_596_801, False)
    def test_unix_times_are_exact_or_an_error(self, number: int, as_text: bool) -> None:
        scale = {9: 1_000, 10: 1_000, 12: 1, 13: 1}.get(len(str(abs(number))))
        raw = str(number) if as_text and scale else number
        expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number * scale) if scale else EARLIEST
        if scale and EARLIEST <= expected < LATEST:
            assert parse_datetime(raw) == expected
        else:
            with pytest.raises(ValueError, match="expected"):
                parse_datetime(raw)

    @given(
        st.one_of(
            any_text,
            st.text("0123456789-:TZ+. /", max_size=30),
            st.from_regex(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}.?[0-9:]*(Z|[+-][0-9:]{2,8})?", fullmatch=True),
            st.from_regex(cleaners._RFC_1123, fullmatch=True),
            st.integers(),
            st.floats(),
            st.decimals(),
            st.datetimes(timezones=st.one_of(st.none(), st.timezones())),
            st.dates(),
        )
    )
    def test_is_idempotent_and_raises_nothing_but_value_error(self, raw: str | float | Decimal | date) -> None:
        try:
            moment = parse_datetime(raw)
        except ValueError:
            return
        assert EARLIEST <= moment < LATEST
        assert moment.utcoffset() == timedelta(0)
        assert parse_datetime(moment) == parse_datetime(moment.isoformat()) == moment
