"""Real cities, and how people there write street addresses and telephone numbers."""

from __future__ import annotations

from typing import NamedTuple


class City(NamedTuple):
    """A city with its state (as its country writes it) and a form of its postal codes; `#` is any digit."""

    name: str
    state: str
    zip_form: str


class Country(NamedTuple):
    """A country: its Faker locale, whether the house number comes first, its cities and its forms of phone numbers.

    A phone form takes two numbers, 200..999 and 0..9999; what comes out is a valid number of the country.
    """

    code: str
    locale: str
    number_first: bool
    cities: tuple[City, ...]
    phone_forms: tuple[str, ...]


COUNTRIES = (
    Country(
        "US",
        "en_US",
        True,
        (
            City("New York", "NY", "100##"),
            City("Los Angeles", "CA", "900##"),
            City("Chicago", "IL", "606##"),
            City("Houston", "TX", "770##"),
            City("Phoenix", "AZ", "850##"),
            City("Philadelphia", "PA", "191##"),
            City("San Diego", "CA", "921##"),
            City("Austin", "TX", "787##"),
            City("Seattle", "WA", "981##"),
            City("Denver", "CO", "802##"),
            City("Boston", "MA", "021##"),
            City("Portland", "OR", "972##"),
            City("Portland", "ME", "041##"),
            City("Springfield", "IL", "627##"),
        ),
        ("+1 206-%03d-%04d", "(212) %03d-%04d", "415.%03d.%04d", "+1312%03d%04d", "1-512-%03d-%04d"),
    ),
    Country(
        "GB",
        "en_GB",
        True,
        (
            City("London", "England", "SW# #AB"),
            City("Manchester", "England", "M# #QT"),
            City("Birmingham", "England", "B# #TW"),
            City("Edinburgh", "Scotland", "EH# #NG"),
            City("Glasgow", "Scotland", "G# #HL"),
            City("Cardiff", "Wales", "CF# #BH"),
            City("Belfast", "Northern Ireland", "BT# #GS"),
        ),
        ("+44 770 %03d %04d", "0770%03d%04d", "(020) 7%03d %04d", "+44 (0)20 7%03d %04d"),
    ),
    Country(
        "DE",
        "de_DE",
        False,
        (
            City("Berlin", "Berlin", "101##"),
            City("Hamburg", "Hamburg", "200##"),
            City("Munich", "Bavaria", "803##"),
            City("Nuremberg", "Bavaria", "904##"),
            City("Cologne", "North Rhine-Westphalia", "506##"),
            City("Leipzig", "Saxony", "041##"),
            City("Stuttgart", "Baden-Württemberg", "701##"),
        ),
        ("+49 1512 %03d%04d", "01512%03d%04d", "+49 (0)30 2%03d%04d", "030/2%03d%04d"),
    ),
    Country(
        "FR",
        "fr_FR",
        True,
        (
            City("Paris", "Île-de-France", "750##"),
            City("Lyon", "Auvergne-Rhône-Alpes", "690##"),
            City("Marseille", "Provence-Alpes-Côte d'Azur", "130##"),
            City("Toulouse", "Occitanie", "310##"),
            City("Lille", "Hauts-de-France", "590##"),
        ),
        ("+33 61%03d%04d", "061%03d%04d", "01 4%03d %04d"),
    ),
    Country(
        "ES",
        "es_ES",
        False,
        (
            City("Madrid", "Madrid", "280##"),
            City("Barcelona", "Catalonia", "080##"),
            City("Valencia", "Valencia", "460##"),
            City("Sevilla", "Andalusia", "410##"),
        ),
        ("+34 61%03d%04d", "61%03d%04d", "91 %03d %04d"),
    ),
    Country(
        "IT",
        "it_IT",
        False,
        (
            City("Rome", "Lazio", "001##"),
            City("Milan", "Lombardy", "201##"),
            City("Naples", "Campania", "801##"),
            City("Turin", "Piedmont", "101##"),
        ),
        ("+39 347 %03d%04d", "347/%03d%04d", "02 4%03d%04d"),
    ),
    Country(
        "NL",
        "nl_NL",
        False,
        (
            City("Amsterdam", "North Holland", "10## AB"),
            City("Rotterdam", "South Holland", "30## KC"),
            City("The Hague", "South Holland", "25## GH"),
            City("Utrecht", "Utrecht", "35## LM"),
        ),
        ("+31 61%03d%04d", "061%03d%04d", "020 %03d %04d"),
    ),
    Country(
        "CA",
        "en_CA",
        True,
        (
            City("Toronto", "ON", "M#H #A#"),
            City("Ottawa", "ON", "K#P #B#"),
            City("Vancouver", "BC", "V#B #C#"),
            City("Calgary", "AB", "T#P #E#"),
            City("Montréal", "QC", "H#Y #G#"),
        ),
        ("+1 416-%03d-%04d", "(604) %03d-%04d", "514.%03d.%04d"),
    ),
    Country(
        "AU",
        "en_AU",
        True,
        (
            City("Sydney", "NSW", "20##"),
            City("Melbourne", "VIC", "30##"),
            City("Brisbane", "QLD", "40##"),
            City("Perth", "WA", "60##"),
        ),
        ("+61 41%03d%04d", "041%03d%04d", "(02) 9%03d %04d"),
    ),
    Country(
        "BR",
        "pt_BR",
        False,
        (
            City("São Paulo", "SP", "010##-###"),
            City("Rio de Janeiro", "RJ", "200##-###"),
            City("Salvador", "BA", "400##-###"),
            City("Curitiba", "PR", "800##-###"),
        ),
        ("+55 11 97%03d-%04d", "(11) 97%03d-%04d", "(21) 3%03d-%04d"),
    ),
    Country(
        "JP",
        "ja_JP",
        False,
        (
            City("Tokyo", "Tokyo", "100-00##"),
            City("Osaka", "Osaka", "530-00##"),
            City("Kyoto", "Kyoto", "600-80##"),
            City("Sapporo", "Hokkaido", "060-00##"),
        ),
        ("+81 90 1%03d %04d", "090-1%03d-%04d", "03-3%03d-%04d"),
    ),
)
