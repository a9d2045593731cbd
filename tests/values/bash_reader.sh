# For each file named, which holds a shell run script's assignments: executes them and prints the values, each with a
# NUL after it, an array after the number of its elements.
for file; do
  (
    # shellcheck disable=SC1090
    source "$file"
    printf '%s\0' "$HOME_DIRECTORY" "$VIRTUALENV" "$SERVER_PATH" "$CURRENT" "$CONFIG" "$PID_FILE" "$RUN_DIRECTORY"
    printf '%s\0' "${#COMMAND[@]}" "${COMMAND[@]}" "${#BINDS[@]}" "${BINDS[@]}" "${#ENVIRONMENT[@]}" "${ENVIRONMENT[@]}"
  ) || exit
done
