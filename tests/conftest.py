"""Fixtures every suite may use: real servers, started once per session."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("drctl.testing.storage_contract")
