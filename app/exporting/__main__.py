"""`python -m app.exporting FOLDER`: the child process of an ONNX export."""

import sys
from pathlib import Path

from app.exporting.child import end_with_parent, main

if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(Path(sys.argv[1])))
