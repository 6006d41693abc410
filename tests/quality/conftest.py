import psycopg, pytest
from include.database.migrate import upgrade
SERVER = "postgresql://postgres@/postgres?host=/tmp/pgdev/data"
@pytest.fixture(scope="session")
def app_database():
    with psycopg.connect(SERVER, autocommit=True) as c:
        c.execute("drop database if exists gate_dev"); c.execute("create database gate_dev")
    url = "postgresql://postgres@/gate_dev?host=/tmp/pgdev/data"
    upgrade(url)
    yield url
    with psycopg.connect(SERVER, autocommit=True) as c: c.execute("drop database gate_dev")
