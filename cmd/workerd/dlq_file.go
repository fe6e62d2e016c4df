package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/workerd/workerd/internal/dlq"
)

// longestLine is more than the largest message NATS takes (64 MiB), in base64.
const longestLine = 96 << 20

func dlqExportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "Write dead letters as lines of JSON", ArgsUsage: "[ID|SEQ...]",
		Description: "A line has everything there is of a letter, the payload in base64. What came\n" +
			"out, `workerd dlq import` brings back.\n\n" +
			"Example: workerd dlq export --pool email -f email.jsonl",
		Flags: slices.Concat(filterFlags("the oldest `N` of them", "all"), []cli.Flag{
			&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "write to `FILE`, which appears when it is complete", DefaultText: "standard output"},
		}, boxFlags()),
		Action: func(c *cli.Context) error {
			f, err := wholeFilter(c)
			if err == nil && c.NArg() > 0 && !f.IsZero() {
				err = fail(exitUsage, helpHint(c), "letters are chosen by arguments or by flags, not by both")
			}
			if err != nil {
				return err
			}
			return inBox(c, func(ctx context.Context, box *dlq.Box) error { return dlqExport(ctx, c, box, f) })
		},
	}
}

func dlqExport(ctx context.Context, c *cli.Context, box *dlq.Box, f dlq.Filter) error {
	letters, total, err := selected(ctx, c, box, f)
	if err != nil {
		return err
	}
	name := c.String("file")
	t := newTally(c.App.ErrWriter, "exporting", total)
	write := func(w io.Writer) error { return exportAll(w, letters, t) }
	if name == "" || name == "-" {
		t.tty = t.tty && !isTerminal(c.App.Writer) // the letters themselves are there
		err = write(c.App.Writer)
		name = "standard output"
	} else {
		err = writeFile(name, write)
	}
	t.end()
	if err == nil {
		fmt.Fprintf(c.App.ErrWriter, "exported %s to %s in %s\n", thousands(t.done), name, took(t.start))
	}
	return err
}

func exportAll(w io.Writer, letters letterSeq, t *tally) error {
	b := bufio.NewWriterSize(w, 64<<10)
	for l, err := range letters {
		if err != nil {
			return errors.Join(err, b.Flush())
		}
		line, err := dlq.Export(l)
		if err != nil {
			return err
		}
		if _, err := b.Write(append(line, '\n')); err != nil {
			return err
		}
		t.done++
		t.tell()
	}
	return b.Flush()
}

// writeFile lets a file appear under its name once all of it is written. Jobs
// may be private, so others may not read it.
func writeFile(name string, write func(io.Writer) error) error {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() { // a pipe, /dev/null
		f, err := os.OpenFile(filepath.Clean(name), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func dlqImportCommand() *cli.Command {
	return &cli.Command{
		Name: "import", Usage: "Put exported dead letters back", ArgsUsage: "FILE|-",
		Description: "Every line is looked at first; if one is wrong nothing is imported. Letters\n" +
			"that are there already are skipped, within the stream's duplicate window.\n\n" +
			"Example: workerd dlq import email.jsonl",
		Flags: slices.Concat([]cli.Flag{dryRunFlag()}, boxFlags()),
		Action: func(c *cli.Context) error {
			name := c.Args().First()
			if name == "" {
				return fail(exitUsage, helpHint(c), "dlq import needs a file that `workerd dlq export` wrote")
			}
			file, err := openLines(c, name)
			if err != nil {
				return fail(exitFailure, "", "cannot read the letters: %w", err)
			}
			defer file.close()
			total, err := file.check(c.App.ErrWriter)
			if err != nil {
				return err
			}
			if c.Bool("dry-run") {
				_, err = fmt.Fprintf(c.App.Writer, "would import %s\n", thousands(total))
				return err
			}
			return inBox(c, func(ctx context.Context, box *dlq.Box) error { return dlqImport(ctx, c, box, importing{file, total}) })
		},
	}
}

type importing struct {
	file  *lines
	total int
}

func dlqImport(ctx context.Context, c *cli.Context, box *dlq.Box, what importing) error {
	t := newTally(c.App.ErrWriter, "importing", what.total)
	err := what.file.each(func(number int, l *dlq.Letter, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		added, err := box.Import(context.WithoutCancel(ctx), l)
		_, refused := errors.AsType[*dlq.Refusal](err)
		switch {
		case refused:
			t.refused(fmt.Sprintf("%s:%d", what.file.name, number), err)
		case err != nil:
			return err
		case added:
			t.done++
		default:
			t.skipped++
		}
		t.tell()
		return nil
	})
	t.end()
	fmt.Fprintf(c.App.Writer, "imported %s, skipped %s (already there), failed %s in %s\n",
		thousands(t.done), thousands(t.skipped), thousands(t.failed), took(t.start))
	return t.result(err, ctx.Err() != nil, "the same command goes on")
}

// lines is a file that can be read twice.
type lines struct {
	name string // for messages
	file *os.File
	temp bool
}

// openLines opens a file. What can be read only once, as standard input, is
// copied to a temporary one.
func openLines(c *cli.Context, name string) (*lines, error) {
	from := c.App.Reader
	if name != "-" {
		f, err := os.Open(filepath.Clean(name))
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			return &lines{name: name, file: f}, nil
		}
		defer f.Close()
		from = f
	}
	temp, err := os.CreateTemp("", "workerd-import-*")
	if err != nil {
		return nil, err
	}
	l := &lines{name: name, file: temp, temp: true}
	if _, err := io.Copy(temp, from); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (f *lines) close() {
	_ = f.file.Close()
	if f.temp {
		_ = os.Remove(f.file.Name())
	}
}

// each reads from the beginning and hands over every line that is not empty,
// until an error is returned.
func (f *lines) each(take func(number int, l *dlq.Letter, err error) error) error {
	if _, err := f.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s := bufio.NewScanner(f.file)
	s.Buffer(nil, longestLine)
	number := 0
	for s.Scan() {
		number++
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 {
			continue
		}
		l, err := dlq.Parse(line)
		if err := take(number, l, err); err != nil {
			return err
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return take(number+1, nil, fmt.Errorf("the line is longer than %d MiB", longestLine>>20))
	}
	return s.Err()
}

// check reads every line and says which are wrong, and how many are right.
func (f *lines) check(w io.Writer) (total int, err error) {
	wrong := 0
	err = f.each(func(number int, _ *dlq.Letter, err error) error {
		if err == nil {
			total++
			return nil
		}
		if wrong++; wrong <= toldFailures {
			fmt.Fprintf(w, "%s:%d: %s\n", f.name, number, dlq.Printable(err.Error(), false))
		}
		return nil
	})
	switch {
	case err != nil:
		return 0, fail(exitFailure, "", "cannot read the letters: %w", err)
	case wrong > 0:
		return 0, fail(exitFailure, "", "%s: %s cannot be read, nothing was imported", f.name, plural(wrong, "line"))
	}
	return total, nil
}
