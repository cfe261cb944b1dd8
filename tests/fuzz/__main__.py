"""A coverage-guided fuzzer on everything that reads foreign bytes.

    python -m tests.fuzz [--target NAME] [--seconds 30] [FILE ...]

With files it reads each of them once, as a crash is seen again. The status is 1 if a target failed;
what failed it is then in build/fuzz/NAME/, beside the corpus that was found.
"""

import argparse
import subprocess
import sys
from pathlib import Path

FOUND = Path("build/fuzz")
LONGEST_BYTES = 4096


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--target", help="one of them; all if none is named")
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", type=Path)
    args = parser.parse_args()
    if args.here:
        _fuzz(args.target, args.seconds)
    names = [args.target] if args.target else _names()
    if args.files:
        return _read(args.target, args.files)
    failed = [name for name in names if _apart(name, args.seconds)]
    for name in failed:
        print(f"failed: make fuzz ARGS='--target {name} {FOUND / name}/crash-...'")
    return int(bool(failed))


def _names() -> list[str]:
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def _apart(name: str, seconds: int) -> int:
    """Fuzz one target in a process of its own: the fuzzer ends the process."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-m", "tests.fuzz", "--here", "--target", name]
    return subprocess.run([*command, "--seconds", str(seconds)], check=False).returncode


def _read(name: str | None, files: list[Path]) -> int:
    from tests.fuzz.targets import TARGETS

    if name is None:
        raise SystemExit("which target? --target NAME")
    for file in files:
        TARGETS[name].read(file.read_bytes())
    return 0


def _fuzz(name: str, seconds: int) -> None:
    import atheris  # only in .venv-fuzz

    with atheris.instrument_imports(include=["penstock"]):
        from tests.fuzz.targets import TARGETS
    target, folder = TARGETS[name], FOUND / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}", "-timeout=20"]
    options += ["-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={folder}/", str(corpus)], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
