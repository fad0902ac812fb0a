"""Personal values leave as keyed hashes or not at all."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from stillwatch import privacy as door
from stillwatch.errors import UsageError
from stillwatch.privacy import Privacy, spans

SECRET = b"sixteen bytes or more of it"


@pytest.fixture
def privacy() -> Privacy:
    return Privacy(SECRET)


def test_the_hash_is_siphash() -> None:
    """The published test vector: key 00..0f, message 00..0e."""
    message = np.arange(15, dtype=np.uint8)
    message.flags.writeable = False
    key = np.frombuffer(bytes(range(16)), "<u8").astype(np.uint64)
    hashed = door._sip(message, 0, 15, key, np.empty(4, np.uint64))
    assert int(hashed) % 2**64 == 0xA129CA6149BE45E5


def test_the_secret_shows_nowhere(privacy: Privacy) -> None:
    assert SECRET.decode() not in repr(privacy) + str(privacy.seed("x")) + privacy.key_id
    assert privacy.key_id in repr(privacy)
    assert pickle.loads(pickle.dumps(privacy)) == privacy


def test_same_secret_same_hashes_other_secret_or_purpose_others(privacy: Privacy) -> None:
    values = pa.array(["a", "b"])
    again = Privacy(SECRET).hash_strings(values, "client")
    assert np.array_equal(privacy.hash_strings(values, "client"), again)
    assert not np.intersect1d(again, privacy.hash_strings(values, "country")).size
    assert not np.intersect1d(again, Privacy.random().hash_strings(values, "client")).size
    assert privacy.seed("a") != privacy.seed("b")


def test_nothing_to_hash_is_zero_and_a_value_never_is(privacy: Privacy) -> None:
    hashed = privacy.hash_strings(pa.array(["", None, "x", "0"]), "client")
    assert hashed[:2].tolist() == [0, 0]
    assert hashed[2:].all()


VALUES = ["one", None, "two", "", "one", "très long " * 9]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_every_kind_of_string_array_hashes_alike(privacy: Privacy, kind: pa.DataType) -> None:
    expected = privacy.hash_strings(pa.array(VALUES), "client").tolist()
    array = pa.array(VALUES, pa.string()).cast(kind) if not pa.types.is_dictionary(kind) else pa.array(VALUES, kind)
    assert privacy.hash_strings(array, "client").tolist() == expected
    assert privacy.hash_strings(array[2:5], "client").tolist() == expected[2:5]
    chunked = pa.chunked_array([array[:1], array[1:]])
    assert privacy.hash_strings(chunked, "client").tolist() == expected


def test_empty_and_null_arrays(privacy: Privacy) -> None:
    for array in (pa.array([], pa.string()), pa.nulls(3), pa.nulls(3, pa.string()), pa.array(["x"])[1:]):
        assert privacy.hash_strings(array, "client").tolist() == [0] * len(array)
        assert privacy.hash_prefix(array).tolist() == [0] * len(array)
    assert privacy.hash_strings(pa.chunked_array([], pa.string()), "client").tolist() == []


def test_a_null_over_bytes_reads_as_empty() -> None:
    valid = pa.py_buffer(b"\x02")
    array = pa.StringArray.from_buffers(2, pa.array([0, 3, 5], pa.int32()).buffers()[1], pa.py_buffer(b"abcde"), valid)
    _, starts, ends = spans(array)
    assert (ends - starts).tolist() == [0, 2]


def test_numbers_are_hashed_as_text(privacy: Privacy) -> None:
    numbers, text = pa.array([7, None]), pa.array(["7", None])
    assert privacy.hash_strings(numbers, "user").tolist() == privacy.hash_strings(text, "user").tolist()


SAME = [
    ("192.0.2.7", "::ffff:192.0.2.7"),
    ("2001:db8::1", "2001:0DB8:0:0::0001"),
    ("fe80::1", "fe80::1%eth0"),
    ("::", "0:0:0:0:0:0:0:0"),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_an_address_is_one_however_it_is_spelt(privacy: Privacy, left: str, right: str) -> None:
    whole, net = privacy.hash_address(pa.array([left, right])), privacy.hash_prefix(pa.array([left, right]))
    assert whole[0] == whole[1] != 0
    assert net[0] == net[1] != 0


def test_prefixes_are_a_24_and_a_48(privacy: Privacy) -> None:
    net = privacy.hash_prefix(
        pa.array(["192.0.2.7", "192.0.2.200", "192.0.3.7", "2001:db8:1::1", "2001:db8:1:9::2", "2001:db8:2::1"])
    )
    assert net[0] == net[1] != net[2]
    assert net[3] == net[4] != net[5]
    assert len(set(privacy.hash_address(pa.array(["192.0.2.7", "192.0.2.200"])).tolist())) == 2


@pytest.mark.parametrize(
    "text", ["1.2.3", "1.2.3.256", "1.2.3.4.5", "1..2.3", ":", "1:2", "1::2::3", "12345::", "nonsense", "::1:"]
)
def test_what_is_no_address_has_no_network(privacy: Privacy, text: str) -> None:
    assert privacy.hash_prefix(pa.array([text])).tolist() == [0]
    assert privacy.hash_address(pa.array([text, text]))[0] != 0


def test_load_takes_file_then_environment_then_chance(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "key"
    path.write_bytes(SECRET + b"\n")
    assert Privacy.load(path) == Privacy(SECRET)
    monkeypatch.setenv(door.KEY_VARIABLE, SECRET.decode())
    assert Privacy.load() == Privacy(SECRET)
    monkeypatch.delenv(door.KEY_VARIABLE)
    assert Privacy.load() != Privacy.load()


def test_a_short_or_missing_key_is_refused_without_showing_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="shorter than 16 bytes") as caught:
        Privacy(b"tiny-secret")
    assert "tiny-secret" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        Privacy.load(tmp_path / "none")
