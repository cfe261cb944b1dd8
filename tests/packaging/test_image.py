"""The container file, the compose file and the systemd unit do what the deployment page says.

No container engine is needed: buildah runs the container file's steps in a chroot, on a base of
Debian's own packages instead of the one that the file names, and the image then runs in a chroot
whose root is mounted read-only.
"""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.packaging.environments import environment
from tests.programs import needed
from tests.proxy.sidecars import call, eventually

OPS = Path(__file__).parents[2] / "ops"
USER = "65532:65532"
BASE = "python3,python3-venv,libstdc++6,libc-bin,dash,coreutils,findutils"
IMAGE_MB = 170
"""What the image adds to its base, unpacked."""

SIDECAR = """
[server]
port = {port}
[admin]
port = {admin}
[[upstreams]]
name = "practice"
base_url = "{url}/v1"
auth = "none"
[log]
decisions_path = "/var/lib/penstock/decisions.jsonl"
[predictor]
state_path = "/var/lib/penstock/lengths.npz"
"""

ENTER = """
set -e
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
mount --bind "$2" "$1/etc/penstock"
mount --bind "$3" "$1/var/lib/penstock"
root=$1
shift 3
PATH=$PATH:/usr/sbin  # where chroot is, which only root's own PATH names
exec chroot --userspec=65532:65532 "$root" /usr/bin/env -i "$@"
"""
"""Root read-only, the configuration, the volume, and a user who is nobody."""


def needed_as_root(program: str, package: str) -> None:
    needed(program, package)
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} needs root here")


def done(command: Sequence[str | Path], **options: object) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert run.returncode == 0, run.stdout[-4_000:] + run.stderr[-4_000:]
    return str(run.stdout)


def of_pip(setting: str) -> str:
    """Return what pip here is set to, by its environment or its file; else an empty text."""
    command = [sys.executable, "-m", "pip", "config", "get"]
    for scope in (":env:", "global"):
        run = subprocess.run(
            [*command, f"{scope}.{setting}"], capture_output=True, text=True, check=False
        )
        if run.returncode == 0:
            return run.stdout.strip()
    return ""


class Image:
    """The built image, as a folder."""

    def __init__(self, place: Path) -> None:
        store: list[str | Path] = ["--root", place / "store", "--runroot", place / "run"]
        self.buildah: list[str | Path] = ["buildah", "--storage-driver", "overlay", *store]
        base = done([*self.buildah, "from", "scratch"]).strip()
        root = done([*self.buildah, "mount", base]).strip()
        # Unpacked alone: setting its packages up takes two minutes, and changes no file used here.
        done(["mmdebstrap", "--quiet", "--variant=extract", f"--include={BASE}", "bookworm", root])
        done([*self.buildah, "commit", "--rm", base, "base"])
        options = ["--isolation", "chroot", "--format", "docker", "-t", "penstock"]
        options += ["--build-arg", "BASE=localhost/base"]
        # What this machine trusts, a company's own certificate included, as the page has it.
        if certificate := of_pip("cert") or ssl.get_default_verify_paths().cafile:
            options += ["-v", f"{Path(certificate).resolve()}:/ca.pem:ro"]
            options += ["--build-arg", "PIP_CERT=/ca.pem"]
        if index_url := of_pip("index-url"):
            options += ["--build-arg", f"PIP_INDEX_URL={index_url}"]
        done([*self.buildah, "bud", *options, "-f", OPS / "Containerfile", OPS.parent])
        self.container = done([*self.buildah, "from", "localhost/penstock"]).strip()
        self.root = Path(done([*self.buildah, "mount", self.container]).strip())
        inspected = json.loads(done([*self.buildah, "inspect", "--type", "image", "penstock"]))
        self.config = inspected["Docker"]["config"]

    def command(self, words: Sequence[str], etc: Path, volume: Path) -> list[str | Path]:
        enter: list[str | Path] = [
            "unshare",
            "--mount",
            "bash",
            "-c",
            ENTER,
            "enter",
            self.root,
            etc,
            volume,
        ]
        return [*enter, *self.config["Env"], *words]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    needed_as_root("buildah", "buildah")
    needed_as_root("mmdebstrap", "mmdebstrap")
    place = tmp_path_factory.mktemp("image")
    place.parent.chmod(0o755)
    built = Image(place)
    yield built
    done([*built.buildah, "rm", "--all"])
    done([*built.buildah, "rmi", "--all", "--force"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_serves_as_nobody_on_a_read_only_root_and_drains_at_sigterm(
    image: Image, tmp_path: Path
) -> None:
    etc, volume = tmp_path / "etc", tmp_path / "volume"
    etc.mkdir()
    volume.mkdir()
    for folder in (etc, volume, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    os.chown(volume, *map(int, USER.split(":")))
    with MockServer(MockSettings()) as mock:
        toml = SIDECAR.format(port=8791, admin=8792, url=mock.url)
        (etc / "penstock.toml").write_text(toml)
        words = [*image.config["Entrypoint"], *image.config["Cmd"]]
        server = subprocess.Popen(image.command(words, etc, volume), stderr=subprocess.PIPE)
        with contextlib.ExitStack() as stack:
            stack.callback(server.kill)
            health = ["penstock", "health", "--admin", "http://127.0.0.1:8792"]
            check = image.command(health, etc, volume)
            eventually(lambda: subprocess.run(check, check=False).returncode == 0, within_s=60.0)
            assert call(8791).status == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=30) == 0
    assert (volume / "decisions.jsonl").stat().st_size > 0
    assert (volume / "decisions.jsonl").stat().st_uid == 65532
    assert subprocess.run(check, check=False).returncode == 1, "nobody answers any more"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_is_small_has_no_installer_and_says_how_it_is_run(image: Image) -> None:
    venv = image.root / "opt" / "penstock"
    files = [file for file in venv.rglob("*") if file.is_file()]

    assert sum(file.stat().st_size for file in files) < IMAGE_MB * 1e6
    assert not [file for file in files if file.name in ("pip", "uv")]
    assert [file for file in files if file.suffix == ".pyc"], "bytecode cannot be written later"
    assert image.config["User"] == USER
    assert image.config["Healthcheck"]["Test"] == ["CMD", "penstock", "health"]


def test_the_compose_file_is_one_by_its_schema_and_mounts_what_is_there() -> None:
    compose = OPS / "compose" / "compose.yaml"
    schema = Path(sys.executable).with_name("check-jsonschema")

    done([schema, "--builtin-schema", "vendor.compose-spec", compose])

    services = yaml.safe_load(compose.read_text())["services"]
    mounts = [v.split(":")[0] for s in services.values() for v in s.get("volumes", ())]
    files = [compose.parent / mount for mount in mounts if mount.startswith(".")]
    assert [file for file in files if not file.exists()] == []
    assert list((OPS / "grafana").glob("*.json"))
    assert all(port.startswith("127.0.0.1:") for s in services.values() for port in s["ports"])


def test_the_composed_sidecar_and_prometheus_are_configured_well(
    tmp_path: Path, environments: Path
) -> None:
    needed_as_root("promtool", "prometheus")
    (tmp_path / "token").write_text("0123456789abcdef0123456789abcdef\n")
    toml = (OPS / "compose" / "penstock.toml").read_text()
    toml = toml.replace("/run/secrets/admin_token", str(tmp_path / "token"))
    (tmp_path / "penstock.toml").write_text(toml.replace("/var/lib/penstock", str(tmp_path)))
    scrape = (OPS / "compose" / "prometheus.yml").read_text()
    scrape = scrape.replace("/run/secrets/admin_token", str(tmp_path / "token"))
    (tmp_path / "prometheus.yml").write_text(scrape)
    (tmp_path / "rules").symlink_to(OPS / "prometheus")
    penstock = Path(sys.executable).with_name("penstock")

    done([penstock, "serve", "--check"], cwd=tmp_path, env={"OPENAI_API_KEY": "practice"})
    said = done(["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path)

    assert "rule files found" in said or "rules found" in said, said


@pytest.mark.slow
def test_systemd_takes_the_unit_and_confines_it(tmp_path: Path, environments: Path) -> None:
    needed_as_root("systemd-analyze", "systemd")
    penstock = environment(["penstock[proxy]"], environments) / "penstock"
    unit = tmp_path / "penstock.service"
    text = (OPS / "systemd" / "penstock.service").read_text()
    unit.write_text(text.replace("/opt/penstock/bin/penstock", str(penstock)))

    done(["systemd-analyze", "verify", unit])
    done(["systemd-analyze", "security", "--offline=true", "--threshold=20", unit])
