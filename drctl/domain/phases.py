"""The phases a recovery passes through: what a promised recovery time may leave out.

Invariant: a phase is named here or it cannot be excluded; net recovery time subtracts only these.
"""

from __future__ import annotations

PHASES: dict[str, str] = {
    "detection": "from the fault until an alarm is raised",
    "declaration": "from the alarm until somebody declares the disaster",
    "approval": "waiting for people to approve",
    "fencing": "proving that the old primary cannot accept writes",
    "provisioning": "getting machines, disks and addresses",
    "restore": "reading the recovery point back",
    "promotion": "making the standby the primary",
    "dns-propagation": "until name servers and clients have forgotten the old address",
    "verification": "until the outside business check has held",
}
