"""The folder of a hospital that has joined. One of an earlier version goes on, so no name changes."""

from gliofed.shared.files import Below, KeptFolder


class HospitalFolder(KeptFolder):
    """Where each file is; those of the kit have the names that it has."""

    kit = Below("kit.json", "What it joined with")
    authority = Below("ca.crt", "The certificate by which it knows the server")
    code = Below("code.fab", "The code that the kit proposes")
    settings = Below("site.yaml", "Its own settings")
    key = Below("site.key", "Its private key; never leaves this machine")
    public_key = Below("site.key.pub", "The key that it is admitted with")
    approvals = Below("approved.json", "The code that may run here")
    approved = Below("approved", "Folder of that code, SHA256.fab each")
    lock = Below("start.lock", "Held by `start`, whose process it names")
    state = Below("state.json", "What the SuperNode does; it writes it")
    problem = Below("problem.json", "Why it does not; `start` writes it")
    flower = Below("flower", "Folder of what Flower's programs write")
    temporary = Below("flower/tmp", "Folder of what they need for a moment")
    apps = Below("flower/apps", "Folder of the code that they unpacked")
