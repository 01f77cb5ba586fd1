"""Methods, one per file, and their objectives: registered by entry points like anyone's."""

if __name__ != "kontrast.plugins":  # reached as plugins/ because the repository root is on sys.path
    raise ImportError(f"write `import kontrast.plugins`, not `import {__name__}`")
