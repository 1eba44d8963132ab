"""Images, videos and cameras in, boxes out: what a board does with a model once it is measured.

All of it but `musgd_cli.predict.bundle` is copied into bundles: it runs on Python 3.9 with NumPy,
OpenCV and an engine, without pydantic, typer, rich or `musgd_cli.records`.
"""
