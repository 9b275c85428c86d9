"""`python -m quickstudy` is the installed command."""

from quickstudy.cli.main import program

if __name__ == "__main__":
    program()
