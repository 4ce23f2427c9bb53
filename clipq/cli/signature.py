"""Who signed a record: a detached signature beside it, checked by OpenSSH.

    ssh-keygen -Y sign -f ~/.ssh/id_ed25519 -n clipq-record report.json     # report.json.sig
    clipq card vit/rtn:w8a8 --allowed-signers allowed_signers

The file of allowed signers is what git takes for signed commits (ssh-keygen(1), ALLOWED SIGNERS).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from clipq.errors import RecordError

__all__ = ["NAMESPACE", "signature_line"]

NAMESPACE = "clipq-record"
"""What a signature is for: one that was made for a commit or a file of another kind is refused."""


def signature_line(record: Path, allowed: Path | None) -> str:
    """Return what a card says of a record's signature.

    Args:
        record: its file; the signature lies beside it, with ``.sig`` behind the name.
        allowed: the file of allowed signers; None where nobody asked for a check.

    Raises:
        RecordError: a check was asked for, and the record is unsigned, was edited after it was
            signed or is signed by somebody else; or ssh-keygen is not installed.

    >>> signature_line(Path("no-report.json"), None)
    'none: the record is unsigned'
    """
    signature = record.with_name(f"{record.name}.sig")
    if allowed is None:
        if signature.is_file():
            return "not checked: pass --allowed-signers"
        return "none: the record is unsigned"
    if not allowed.is_file():
        raise RecordError(
            f"no file of allowed signers at {allowed}",
            hint="a line of it is: ada@example.org ssh-ed25519 AAAA...",
        )
    if not signature.is_file():
        raise RecordError(
            f"{record} is unsigned: there is no {signature}",
            hint=f"sign it where it was made: ssh-keygen -Y sign -f KEY -n {NAMESPACE} {record}",
        )
    return f"signed by {_signer(record, signature, allowed)}"


def _signer(record: Path, signature: Path, allowed: Path) -> str:
    known = _ssh_keygen("find-principals", "-s", str(signature), "-f", str(allowed))
    said = known.stderr
    for name in known.stdout.splitlines() if known.returncode == 0 else ():
        options = ("-n", NAMESPACE, "-I", name, "-s", str(signature), "-f", str(allowed))
        checked = _ssh_keygen("verify", *options, content=record.read_bytes())
        if checked.returncode == 0:
            return name
        said = checked.stderr or checked.stdout
    raise RecordError(
        f"the signature of {record} is not one of an allowed signer: {said.strip()}",
        hint=f"it was edited after it was signed, or its signer is not in {allowed}",
    )


def _ssh_keygen(
    action: str, *options: str, content: bytes = b""
) -> subprocess.CompletedProcess[str]:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise RecordError(
            "ssh-keygen is not installed: the signature cannot be checked",
            hint="install OpenSSH 8.2 or later",
        )
    try:
        done = subprocess.run(
            [program, "-Y", action, *options], input=content, capture_output=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RecordError(
            f"the signature cannot be checked: {error}", hint="run ssh-keygen by hand"
        ) from error
    texts = (part.decode("utf-8", "replace") for part in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, *texts)
