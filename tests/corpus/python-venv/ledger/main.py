"""The application: `uvicorn ledger.main:app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, ORJSONResponse
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger import store
from ledger.machinery import router as machinery

templates = Jinja2Templates(directory=Path(__file__).parent / "templates")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    store.prepare()
    yield


app = FastAPI(title="Ledger", lifespan=lifespan, default_response_class=ORJSONResponse)
app.include_router(machinery, prefix="/machinery")

Open = Annotated[Session, Depends(store.session)]


class Balance(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    account: str
    currency: str
    balance: Decimal
    entries: int


def balance_of(account: store.Account) -> Balance:
    total = sum((entry.amount for entry in account.entries), Decimal(0))
    return Balance(account=account.name, currency=account.currency, balance=total, entries=len(account.entries))


def account_or_404(session: Session, name: str) -> store.Account:
    account = session.scalar(select(store.Account).where(store.Account.name == name))
    if account is None:
        raise HTTPException(404, f"no account {name!r}")
    return account


@app.get("/", response_class=HTMLResponse)
def index(request: Request, session: Open) -> HTMLResponse:
    accounts = session.scalars(select(store.Account).order_by(store.Account.name))
    return templates.TemplateResponse(request, "index.html", {"balances": list(map(balance_of, accounts))})


@app.get("/accounts/{name}")
def account(name: str, session: Open) -> Balance:
    return balance_of(account_or_404(session, name))


@app.get("/accounts/{name}/statement")
def statement(name: str, session: Open) -> HTMLResponse:
    # Only this route needs the statement writer.
    from ledger import statements

    return HTMLResponse(statements.csv_of(account_or_404(session, name)), media_type="text/csv")
