"""Why the site did not do what it was asked, as its audit log's receipts have it, in words."""

from typing import Any

from gliofed.shared.site_config import SiteConfig


def reason_of(receipt: dict[str, Any]) -> str | None:
    """Say why the site did not do what it was asked, and None where it did."""
    if receipt["status"] == "ok":
        return None
    from gliofed.shared.messages import CODES  # Flower takes a second to load

    return CODES.get(str(receipt["code"]), str(receipt["code"]))  # of a later version, perhaps


def refusal(site: SiteConfig, receipt: dict[str, Any]) -> str | None:
    """One sentence of a receipt's request that the site did not do; None where it did."""
    reason = reason_of(receipt)
    about = receipt["kind"] + (f" of round {receipt['round']}" if receipt["round"] is not None else "")
    return reason and f"{about} {receipt['status']}: {reason}; the detail is in {site.folder.log}"
