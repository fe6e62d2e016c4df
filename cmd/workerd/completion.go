package main

import (
	"io"

	"github.com/urfave/cli/v2"
)

// completionFlag asks the library for the words that may come next. It is the
// last argument then.
const completionFlag = "--generate-bash-completion"

// bashCompletion lets workerd itself say what may come next, and falls back to
// file names. The library describes the words if it takes the shell for zsh,
// and fails on a part of a flag; a single dash asks for all flags.
const bashCompletion = `_workerd() {
  local cur="${COMP_WORDS[COMP_CWORD]}" words=("${COMP_WORDS[@]:0:COMP_CWORD}")
  case "$cur" in -*) words+=(-) ;; esac
  COMPREPLY=($(compgen -W "$(SHELL=bash "${words[@]}" ` + completionFlag + ` 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _workerd workerd
`

// zshCompletion is the same by way of zsh's own emulation.
const zshCompletion = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + bashCompletion

func completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "Print a completion script for bash, zsh or fish", ArgsUsage: "SHELL",
		Description: "Example: source <(workerd completion bash)",
		Action: func(c *cli.Context) error {
			var script string
			var err error
			switch shell := c.Args().First(); shell {
			case "bash":
				script = bashCompletion
			case "zsh":
				script = zshCompletion
			case "fish":
				script, err = c.App.ToFishCompletion()
			default:
				return fail(exitUsage, helpHint(c), "shell %q is not known, use bash, zsh or fish", shell)
			}
			if err == nil {
				_, err = io.WriteString(c.App.Writer, script)
			}
			return err
		},
	}
}
