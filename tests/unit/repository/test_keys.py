"""Key files: which password opens them, what a hostile one can cost, and that no secret shows."""

from __future__ import annotations

import base64
import logging
import time
import traceback
from datetime import UTC, datetime

import orjson
import pytest

from drctl.domain.secret import Secret
from drctl.errors import CorruptError, DrctlError, UsageError
from drctl.repository.crypto import ScryptCost, Sealer, SealingKey, derive_key
from drctl.repository.keys import KeyFile, decode_key_file, encode_key_file

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CHEAP = ScryptCost(16, 1, 1)
MASTER = SealingKey.generate()
PASSWORD = Secret("canary-password-5f3a")


def key_file(**change: object) -> bytes:
    """A good key file but for the change."""
    fields = orjson.loads(encode_key_file(MASTER, PASSWORD, CHEAP, NOW, "user", "host"))
    return orjson.dumps({**fields, **change})


def test_a_key_file_opens_with_its_password_and_with_no_other() -> None:
    parsed = decode_key_file(key_file(), "keys/ab")
    assert parsed.open(PASSWORD, "keys/ab") == MASTER
    for other in ("", "canary-password-5f3", "canary-password-5f3a\n", "Canary-password-5f3a"):
        assert parsed.open(Secret(other), "keys/ab") is None


@pytest.mark.parametrize(
    "password", ["p\u00e4ssw\u00f6rd \U0001f511", "\udcff\udcfe not utf-8", "x" * 100_000]
)
def test_any_bytes_a_file_or_the_environment_gives_are_a_password(password: str) -> None:
    data = encode_key_file(MASTER, Secret(password), CHEAP, NOW, "user", "host")
    assert decode_key_file(data, "keys/ab").open(Secret(password), "keys/ab") == MASTER


def test_the_password_of_raw_bytes_is_those_bytes() -> None:
    data = orjson.loads(encode_key_file(MASTER, Secret("\udcff"), CHEAP, NOW, "user", "host"))
    derived = derive_key(b"\xff", base64.b64decode(data["salt"]), CHEAP)
    assert Sealer(derived).open(base64.b64decode(data["data"]), "here")


def test_half_a_surrogate_pair_is_refused_without_showing_the_password() -> None:
    password = Secret("".join(["can", "ary", "\ud800"]))  # a traceback shows the source
    with pytest.raises(UsageError) as caught:
        encode_key_file(MASTER, password, CHEAP, NOW, "user", "host")
    assert "canary" not in everything_said(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"N": 2**30}, {"N": 2**24, "r": 8}, {"r": 2**20}, {"p": 10**9}, {"N": 0}, {"N": 1}, {"N": 3}, {"N": -16},
     {"r": 0}, {"p": 0}, {"N": 1e30}, {"N": "16"}, {"N": None}, {"N": True}, {"kdf": "pbkdf2"}, {"kdf": None},
     {"kdf": ["scrypt"]}, {"salt": 5}, {"salt": "?"}, {"salt": None},
     {"data": ""}, {"data": "AAAA"}, {"data": 7}, {"data": "\u00e9"},
     {"created": 5}, {"hostname": {}}, {"username": ["x"]}],
)  # fmt: skip
def test_a_hostile_key_file_is_corrupt_before_it_costs_anything(change: dict[str, object]) -> None:
    start = time.process_time()
    with pytest.raises(CorruptError, match="keys/ab"):
        decode_key_file(key_file(**change), "keys/ab")
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"5", b"null", b"\xff", b"{}", b"[" * 60_000, b'{"kdf":"scrypt"}']
)
def test_what_is_no_key_file_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError, match="keys/ab"):
        decode_key_file(data, "keys/ab")


MASTER_JSON = MASTER.to_json()


@pytest.mark.parametrize(
    "content",
    [b"", b"canary", b"{}", b"[]", b'{"mac":{"k":"AA==","r":"AA=="},"encrypt":"AA=="}',
     b'{"mac":5,"encrypt":"canary"}',
     orjson.dumps({**MASTER_JSON, "encrypt": "canary canary"}), orjson.dumps({**MASTER_JSON, "mac": None}),
     orjson.dumps(MASTER_JSON)[:-5] + b"canary"],
    ids=range(9),  # the key is random, and xdist's workers must agree on names
)  # fmt: skip
def test_a_malformed_master_key_is_corrupt_and_not_shown(content: bytes) -> None:
    salt = bytes(64)
    sealed = b"".join(Sealer(derive_key(PASSWORD.reveal().encode(), salt, CHEAP)).seal(content))
    parsed = KeyFile("", "", "", CHEAP, salt, sealed)
    with pytest.raises(CorruptError, match="keys/ab") as caught:
        parsed.open(PASSWORD, "keys/ab")
    said = everything_said(caught.value)
    assert "canary" not in said
    assert str(MASTER_JSON["encrypt"]) not in said


def everything_said(error: BaseException) -> str:
    """All texts an error and its causes carry, their attributes included."""
    said = ["".join(traceback.format_exception(error))]
    seen: BaseException | None = error
    while seen is not None:
        said += [repr(seen), str(seen), repr(vars(seen)), repr(seen.args)]
        said += [repr(getattr(seen, name, "")) for name in ("doc", "object", "hint", "message")]
        seen = seen.__cause__ or seen.__context__
    return "".join(said)


def test_no_secret_shows_in_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    canary = base64.b64encode(MASTER.encrypt).decode()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").debug("%s %r %s", PASSWORD, PASSWORD, MASTER)
    shown = f"{PASSWORD} {PASSWORD!r} {MASTER} {MASTER!r} {[PASSWORD, MASTER]} {caplog.text}"
    assert "canary" not in shown
    assert canary not in shown and MASTER.encrypt.hex() not in shown and repr(MASTER.encrypt) not in shown
    assert repr(MASTER.mac_k) not in shown and repr(MASTER.mac_r) not in shown


def test_the_errors_of_a_wrong_key_do_not_show_it() -> None:
    sealed = b"".join(Sealer(MASTER).seal(b"canary"))
    with pytest.raises(DrctlError) as caught:
        Sealer(SealingKey.generate()).open(sealed, "config")
    assert "canary" not in everything_said(caught.value)


def test_the_fixed_bits_of_poly1305_are_clear_in_every_key() -> None:
    for key in (SealingKey.generate(), SealingKey.from_bytes(b"\xff" * 64)):
        assert all(key.mac_r[index] & 0xF0 == 0 for index in (3, 7, 11, 15))
        assert all(key.mac_r[index] & 0x03 == 0 for index in (4, 8, 12))
        assert SealingKey.from_json(key.to_json(), "here") == key
