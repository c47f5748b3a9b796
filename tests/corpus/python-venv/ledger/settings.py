"""Settings, from the environment: LEDGER_DATABASE, LEDGER_ZONE, LEDGER_PORT."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="LEDGER_")

    database: str = "sqlite:////tmp/ledger.db"
    zone: str = "America/St_Johns"
    port: int = 18210


settings = Settings()
