from fastapi.testclient import TestClient

from ledger.main import app


def test_balances_add_up():
    with TestClient(app) as client:
        assert client.get("/accounts/rent").json()["balance"] == "-1880.00"


def test_unknown_account():
    with TestClient(app) as client:
        assert client.get("/accounts/yacht").status_code == 404
