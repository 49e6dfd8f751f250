"""The configuration: one TOML file, overridden by environment variables, checked whole.

``RECALLFS_CONFIG`` names the file; without it the platform's configuration folder is used
(``~/.config/recallfs/config.toml`` on Linux). Any value can be overridden by a variable
``RECALLFS_<SECTION>__<KEY>``, for example ``RECALLFS_RELEASE__HOLD=14d``.
"""

from __future__ import annotations

from recallfs.config.parsing import config_path, load_config
from recallfs.config.registration import register_store, unregister_store
from recallfs.config.settings import (
    BACKUPS_AND_INDEXERS,
    PUBLIC_KINDS,
    SOURCE_KINDS,
    CacheSettings,
    Config,
    DandiSettings,
    EnvironmentSettings,
    ExpectedFailure,
    Floor,
    KacherySettings,
    LogSettings,
    MirrorSettings,
    PolicySettings,
    ReaderSettings,
    RecallSettings,
    RecipeSettings,
    ReleaseSettings,
    RemoteSettings,
    StoreSettings,
    nearest,
)

__all__ = [
    "BACKUPS_AND_INDEXERS",
    "PUBLIC_KINDS",
    "SOURCE_KINDS",
    "CacheSettings",
    "Config",
    "DandiSettings",
    "EnvironmentSettings",
    "ExpectedFailure",
    "Floor",
    "KacherySettings",
    "LogSettings",
    "MirrorSettings",
    "PolicySettings",
    "ReaderSettings",
    "RecallSettings",
    "RecipeSettings",
    "ReleaseSettings",
    "RemoteSettings",
    "StoreSettings",
    "config_path",
    "load_config",
    "nearest",
    "register_store",
    "unregister_store",
]
