import pytest

from matinee.sources.titles import parse_genres, parse_title


@pytest.mark.parametrize(
    ("text", "name", "year"),
    [
        ("Toy Story (1995)", "Toy Story", 1995),
        ("Usual Suspects, The (1995)", "The Usual Suspects", 1995),
        ("Heidi Fleiss: Hollywood Madam (1995) ", "Heidi Fleiss: Hollywood Madam", 1995),
        ("Land Before Time III: The Time of the Great Giving (1995) (V)", None, 1995),
        ("Contempt (Mépris, Le) (1963)", "Contempt (Le Mépris)", 1963),
        ("Avventura, L' (1960)", "L'Avventura", 1960),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
        ("Doctor Who (2005–)", "Doctor Who", 2005),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("1984", "1984", None),
        ("unknown", "unknown", None),
        ("Girl, Interrupted (1999)", "Girl, Interrupted", 1999),
        ("", "", None),
    ],
)
def test_names_and_years_are_parted(text: str, name: str | None, year: int | None) -> None:
    expected = "Land Before Time III: The Time of the Great Giving" if name is None else name
    assert parse_title(text) == (expected, year)


def test_genres_are_split_and_none_listed_is_none() -> None:
    assert parse_genres("Crime|Thriller") == ["Crime", "Thriller"]
    assert parse_genres("(no genres listed)") == []
    assert parse_genres("") == parse_genres(None) == []
