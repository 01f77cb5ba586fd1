"""Domains: how their data is loaded, encoded and augmented. Registered by entry points like anyone's."""

if __name__ != "kontrast.adapters":  # reached as adapters/ because the repository root is on sys.path
    raise ImportError(f"write `import kontrast.adapters`, not `import {__name__}`")
