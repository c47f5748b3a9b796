"""Accounts and entries, by SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal

from sqlalchemy import ForeignKey, Numeric, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from ledger.settings import settings

engine = create_engine(settings.database)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    currency: Mapped[str]
    entries: Mapped[list[Entry]] = relationship(back_populates="account", order_by="Entry.day")


class Entry(Base):
    __tablename__ = "entries"

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    day: Mapped[date]
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    memo: Mapped[str]
    account: Mapped[Account] = relationship(back_populates="entries")


OPENING = {
    ("rent", "EUR"): [(date(2024, 1, 1), "-940.00", "January"), (date(2024, 2, 1), "-940.00", "February")],
    ("salary", "EUR"): [(date(2024, 1, 31), "3210.55", "January"), (date(2024, 2, 29), "3210.55", "February")],
    ("travel", "CAD"): [(date(2024, 2, 11), "-118.20", "St. John's")],
}


def prepare() -> None:
    """Create the tables, and the opening entries of an empty ledger."""
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        if session.scalar(select(func.count(Account.id))):
            return
        for (name, currency), rows in OPENING.items():
            entries = [Entry(day=day, amount=Decimal(amount), memo=memo) for day, amount, memo in rows]
            session.add(Account(name=name, currency=currency, entries=entries))


def session() -> Iterator[Session]:
    with Session(engine) as open_session:
        yield open_session
