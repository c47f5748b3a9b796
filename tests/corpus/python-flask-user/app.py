"""Start the handbook: `python app.py`, or PORT=… python app.py."""

import os

from handbook import create_app

app = create_app()

if __name__ == "__main__":
    app.run(host="0.0.0.0", port=int(os.environ.get("PORT", "18200")))
