"""A federation's folder, at the server. One of an earlier version goes on, so no name changes."""

from pathlib import Path

from gliofed.shared.files import Below, KeptFolder


class FederationFolder(KeptFolder):
    """Where each file is; the audit log of what was done is `gliofed.shared.audit.audit_file`."""

    settings = Below("federation.yaml", "Name, address and sites")
    ca = Below("ca", "Folder of the authority")
    authority = Below("ca/ca.crt", "Its certificate")
    authority_key = Below("ca/ca.key", "Its key; kept elsewhere once the certificates are made")
    certificates = Below("server", "Folder of the server's own, NAME.crt and NAME.key each")
    link_key = Below("server/link.key", "What speaks TLS on loopback, and signs")
    code = Below("code.fab", "The code that is proposed to the hospitals")
    kits = Below("kits", "Folder with a SITE.zip for each hospital")
    sites = Below("sites", "Folder with a folder for each hospital that was ever admitted")
    runs = Below("runs", "Folder of runs, each a `gliofed.shared.run_folder.RunFolder`")
    runs_lock = Below("runs/.lock", "Held by who makes a run")
    announced = Below("runs/submitted.json", "Which run was submitted last, and as what")
    link = Below("link", "Folder of what the programs of `start` write, each its log too")
    online = Below("link/state.json", "What `start` knows at this moment")
    port = Below("link/link.json", "The SuperLink's port on loopback")
    nginx = Below("link/nginx.conf", "nginx's settings")
    superlink_log = Below("link/superlink.log", "What the SuperLink printed")
    database = Below("link/state.db", "Flower's own")
    flower = Below("link/flower", "Folder of what else Flower writes")
    apps = Below("link/flower/apps", "Folder of the code that it unpacked")

    def record(self, site: str) -> Path:
        """How a site was admitted."""
        return self.sites / site / "site.json"

    def key(self, site: str) -> Path:
        """The key that it was admitted with."""
        return self.sites / site / "key.pub"

    def kit(self, site: str) -> Path:
        """What it joins with."""
        return self.kits / f"{site}.zip"

    def certificate(self, name: str) -> Path:
        """One of the server's own; its key lies beside."""
        return self.certificates / f"{name}.crt"
