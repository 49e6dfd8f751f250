"""fsspec's transactions, all or nothing."""

from __future__ import annotations

from fsspec.transaction import Transaction

from recallfs.errors import InvalidInputError


class RecallTransaction(Transaction):
    """Commits all files or none, as far as can be told before the first one is."""

    def start(self) -> None:
        """Begin; a transaction within a transaction would forget the files of the outer one."""
        if self.fs._intrans:
            raise InvalidInputError("a transaction of this filesystem is under way already.")
        super().start()

    def complete(self, commit: bool = True) -> None:
        """Commit or discard all files; should one be refused, all are discarded."""
        fs, files = self.fs, list(self.files)
        try:
            for file in files if commit else ():
                file.check()
            super().complete(commit)
        except BaseException:
            for file in files:
                file.discard()
            self.files.clear()
            fs._intrans, fs._transaction = False, None
            raise
