load helper

commands=(lob-connect lob-parse lob-book lob-publish lob-trace)

@test "each command explains itself and exits 0" {
  for command in "${commands[@]}"; do
    run -0 --separate-stderr "$command" --help
    [[ "$output" == *"Usage: $command"* ]]
    [[ "$output" == *"Exit status"* ]]
    [[ "$output" == *"$command "* ]]
    [ -z "$stderr" ]
  done
}

@test "each command refuses a wrong option with one sentence on stderr and exits 2" {
  for command in "${commands[@]}"; do
    run -2 --separate-stderr "$command" --no-such-option
    [ -z "$output" ]
    [ "${#stderr_lines[@]}" -eq 1 ]
    [[ "$stderr" == "$command: "*"--no-such-option"* ]]
  done
}

@test "a stage whose stdin ends before a ring is announced exits 1, and says so" {
  for command in lob-parse lob-book lob-publish; do
    run -1 --separate-stderr "$command" --instance "$INSTANCE" </dev/null
    [[ "$stderr" == "$command: "*"upstream ended before it announced a ring"* ]]
  done
  [ -z "$(shm_files)" ]
}

@test "a stage whose stdin is something else exits 2" {
  for command in lob-parse lob-book lob-publish; do
    run -2 --separate-stderr "$command" --instance "$INSTANCE" <<<"hello"
    [ "${#stderr_lines[@]}" -eq 1 ]
  done
}
