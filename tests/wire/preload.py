"""Programs with a library of ours before all others, which a test tells what to do through a page of memory (shared_page.h)."""
import mmap
import os


def shared_page(file):
    """The page, all zeros; `file` is what the library maps too."""
    file.write_bytes(bytes(mmap.PAGESIZE))
    with open(file, "r+b") as opened:
        return mmap.mmap(opened.fileno(), mmap.PAGESIZE)


def environment(library, variable, file):
    """The program's; the variable is where the library finds the file's name."""
    return {variable: str(file), "LD_PRELOAD": str(library),
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}   # it would insist on being first
