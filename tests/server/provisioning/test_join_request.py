"""A request to join: only the hospital that holds the key, of this federation, with the kit that was made here."""

import base64
import json
from pathlib import Path

import pytest
from admission import asked, record
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from small_federation import TEXT, altered, provisioned, rewrite
from telephone import admit_told

from gliofed.client.link.join import join
from gliofed.server.provisioning.admit import admit
from gliofed.shared import keys
from gliofed.shared.kit import read_kit
from gliofed.shared.parse import ConfigError


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": "hospital-b"}, "altered"),
        ({"patients": 10**6}, "altered"),
        ({"kit_sha256": "0" * 64}, "altered"),
        ({"kit_sha256": None}, "altered"),
        ({"patients": None}, "altered"),
        ({"patients": 10**9}, "patients=1000000000"),
        ({"made": "2020-01-01T00:00:00+00:00"}, "altered"),
        ({"signature": ""}, "altered"),
        ({"signature": "no base64"}, "altered"),
        ({"signature": "é"}, "altered"),
        ({"public_key": "ssh-ed25519 AAAA"}, "no public key"),
        ({"public_key": "two\nlines"}, "no public key"),
        ({"site": "../b"}, "site=../b"),
        ({"more": 1}, "more"),
        ({"made": "x" * 2**16}, "too large"),
    ],
)
def test_altered_request(folder: Path, tmp_path: Path, change: dict[str, object], words: str) -> None:
    request = asked(folder, tmp_path / "a")
    with pytest.raises(ConfigError, match=words):
        admit_told(rewrite(request, **change), folder)
    assert not (folder / "sites").exists()


def older_version(request: Path, key: Path) -> Path:
    """The request as a version before numbers were agreed wrote and signed it."""
    made = json.loads(request.read_text())
    rest = {name: value for name, value in made.items() if name not in ("patients", "kit_sha256", "signature")}
    signed = b"gliofed join request\n" + json.dumps(rest, sort_keys=True).encode()
    own = load_ssh_private_key(key.read_bytes(), None)
    assert isinstance(own, ec.EllipticCurvePrivateKey)
    signature = base64.b64encode(own.sign(signed, ec.ECDSA(SHA384()))).decode()
    request.write_text(json.dumps({**rest, "signature": signature}))
    return request


def test_a_request_without_a_number_needs_one(folder: Path, tmp_path: Path) -> None:
    request = older_version(asked(folder, tmp_path / "a"), tmp_path / "a/site.key")
    with pytest.raises(ConfigError, match=r"without a number of patients; agree on one by telephone.*--patients N"):
        admit_told(request, folder)
    assert not (folder / "sites").exists()
    admit_told(request, folder, patients=70)
    assert record(folder)["patients"] == 70


def test_a_hospital_that_joined_with_an_altered_kit_is_not_admitted(folder: Path, tmp_path: Path) -> None:
    """Its settings may be another's wish; the key that is compared by telephone has signed which kit it was."""
    join(altered(folder / "kits/hospital-a.zip", tmp_path / "wrong.zip", weaker), tmp_path / "a", patients=100)
    with pytest.raises(ConfigError, match=r"it joined with a kit that was not made here, .*it was altered on its way"):
        admit_told(tmp_path / "a/hospital-a.request.json", folder)
    assert not (folder / "sites").exists()


def weaker(files: dict[str, bytes]) -> None:
    files["site.yaml"] = files["site.yaml"].replace(b"metrics: unless_private", b"metrics: always")


def test_a_thief_of_the_request_cannot_sign(folder: Path, tmp_path: Path) -> None:
    """Another's public key with one's own signature: the proof of possession fails."""
    mine, theirs = (json.loads(asked(folder, tmp_path / name).read_text()) for name in ("mine", "theirs"))
    request = tmp_path / "request.json"
    request.write_text(json.dumps(mine | {"public_key": theirs["public_key"]}))
    with pytest.raises(ConfigError, match="altered"):
        admit(request, folder, "any")


def test_other_curve(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gliofed.client.link.join.new_key", lambda: ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ConfigError, match="must be EC P-384"):
        admit(asked(folder, tmp_path / "a"), folder, "any")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.replace("name: study", "name: other"), "for the federation other"),
        (TEXT, "another authority"),
    ],
)
def test_other_federation(folder: Path, tmp_path: Path, text: str, words: str) -> None:
    """A name alone proves nothing: anybody may call a federation study."""
    other = provisioned(tmp_path / "elsewhere", text)
    with pytest.raises(ConfigError, match=words):
        request = asked(other, tmp_path / "a")
        admit_told(request, folder)


def test_unlisted_site(folder: Path, tmp_path: Path) -> None:
    request = asked(folder, tmp_path / "a")
    (folder / "federation.yaml").write_text(TEXT.replace("hospital-a, ", ""))
    with pytest.raises(ConfigError, match=r"hospital-a is not in federation\.yaml; its sites are hospital-b"):
        admit_told(request, folder)


def test_kit_names_the_authority(made: Path) -> None:
    kit, files, _ = read_kit(made / "kits/hospital-a.zip")
    assert kit.ca_sha256 == keys.certificate_sha256(keys.read_authority((made / "ca/ca.crt").read_bytes(), "ca"))
    assert files["ca.crt"] == (made / "ca/ca.crt").read_bytes()
