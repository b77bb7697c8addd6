# The sprite's own commands come first.
case ":$PATH:" in
    *:/.sprite/bin:*) ;;
    *) export PATH="/.sprite/bin:$PATH" ;;
esac
