package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	pretty "github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/workerd/workerd/internal/dlq"
)

// Letters listed, and the most of them: all are held, as the newest come first.
const (
	defaultListed = 50
	maxListed     = 10_000
)

func dlqLsCommand() *cli.Command {
	return &cli.Command{
		Name: "ls", Aliases: []string{"list"}, Usage: "List dead letters, the newest first, or count them by cause",
		Description: "With --group alone it counts the letters of each cause. Two errors have one\n" +
			"cause if they differ in nothing but numbers, ids, addresses and the like.\n\n" +
			"With -o json it prints an object a line, for jq and the like.\n\n" +
			"Example: workerd dlq ls --group\n" +
			"         workerd dlq ls --group 7c01f2 --since 1h",
		Flags: slices.Concat(filterFlags("show `N` of them, at most 10000", "50"), []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "text or json", Value: "text"},
		}, boxFlags()),
		Action: dlqLs,
	}
}

func validOutput(c *cli.Context) error {
	if o := c.String("output"); o != "text" && o != "json" {
		return fail(exitUsage, helpHint(c), "--output %q is not allowed, use text or json", o)
	}
	return nil
}

func dlqLs(c *cli.Context) error {
	f, grouped, err := filter(c)
	if err == nil {
		err = validOutput(c)
	}
	if err != nil {
		return err
	}
	most := f.Limit
	if f.Limit = 0; most == 0 {
		most = defaultListed
	}
	if most > maxListed {
		return fail(exitUsage, "`workerd dlq export` writes all of them", "--limit: %d is not allowed, use 1 to %d", most, maxListed)
	}
	l := listing{c, f, most}
	return inBox(c, func(ctx context.Context, box *dlq.Box) error {
		if grouped {
			return l.groups(ctx, box)
		}
		return l.letters(ctx, box)
	})
}

// listing is what ls was asked for.
type listing struct {
	c    *cli.Context
	f    dlq.Filter
	most int
}

func (l listing) isJSON() bool { return l.c.String("output") == "json" }

func (l listing) letters(ctx context.Context, box *dlq.Box) error {
	letters, total, err := box.Newest(ctx, l.f, l.most)
	if err != nil {
		return err
	}
	if l.isJSON() {
		return printLines(l.c.App.Writer, letters, func(l *dlq.Letter) any { return asJSON(l) })
	}
	rows := newRows(l.c.App.Writer, total, "SEQ", "AGE", "POOL", "JOB", "CAUSE", "GROUP")
	for _, l := range letters {
		rows.add(strconv.FormatUint(l.Sequence, 10), ago(l.Stored), l.Pool, l.ID, why(l.Reason, l.Error), l.Fingerprint)
	}
	return rows.print(l.f)
}

func (l listing) groups(ctx context.Context, box *dlq.Box) error {
	groups, others, err := box.Groups(ctx, l.f)
	if err != nil {
		return err
	}
	if others > 0 {
		fmt.Fprintf(l.c.App.ErrWriter, "workerd: %s of further causes are not listed\n", plural(others, "letter"))
	}
	total := len(groups)
	groups = groups[:min(l.most, total)]
	if l.isJSON() {
		return printLines(l.c.App.Writer, groups, func(g dlq.Group) any { return g })
	}
	rows := newRows(l.c.App.Writer, total, "CAUSE", "POOL", "COUNT", "LAST", "FINGERPRINT")
	for _, g := range groups {
		rows.add(why(g.Reason, g.Cause), pools(g.Pools), thousands(g.Count), ago(g.Last), g.Fingerprint)
	}
	return rows.print(l.f)
}

func printLines[T any](w io.Writer, all []T, as func(T) any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for _, v := range all {
		if err := encoder.Encode(as(v)); err != nil {
			return err
		}
	}
	return nil
}

// rows is a table that fits its terminal: one column, CAUSE, gives way.
type rows struct {
	w     io.Writer
	total int // rows there are, shown or not
	names []string
	cells [][]string
}

func newRows(w io.Writer, total int, names ...string) *rows {
	return &rows{w: w, total: total, names: names}
}

// The widths of a table.
const (
	pipeWidth   = 140 // where there is no terminal
	narrow      = 100 // from here on there is room for the job's id
	wide        = 120 // and here for the longest
	widestPool  = 20
	widestJob   = 36
	shortestWhy = 16
)

func (r *rows) add(cells ...string) {
	for i := range cells {
		cells[i] = dlq.Printable(cells[i], false)
	}
	r.cells = append(r.cells, cells)
}

func (r *rows) print(f dlq.Filter) error {
	if r.total == 0 {
		_, err := fmt.Fprintln(r.w, none(f))
		return err
	}
	width := pipeWidth
	if file, ok := r.w.(interface{ Fd() uintptr }); ok {
		if n, _, err := term.GetSize(int(file.Fd())); err == nil && n > 0 {
			width = n
		}
	}
	_, err := fmt.Fprintln(r.w, r.render(width))
	if more := r.total - len(r.cells); more > 0 && err == nil {
		_, err = fmt.Fprintf(r.w, "… and %s more\n", thousands(more))
	}
	return err
}

func (r *rows) render(width int) string {
	widest := map[string]int{"POOL": widestPool, "JOB": widestPool}
	if width >= wide {
		widest["JOB"] = widestJob
	}
	r.snip(widest)
	r.snip(map[string]int{"CAUSE": r.room(width)})
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.AppendHeader(r.row(r.names, width))
	for _, cells := range r.cells {
		t.AppendRow(r.row(cells, width))
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Name: "SEQ", Align: pretty.AlignRight}, {Name: "COUNT", Align: pretty.AlignRight}})
	return t.Render()
}

// snip shortens the cells of some columns.
func (r *rows) snip(widest map[string]int) {
	for _, cells := range r.cells {
		for i, name := range r.names {
			if n, ok := widest[name]; ok {
				cells[i] = pretty.Snip(cells[i], n, "…")
			}
		}
	}
}

// hides tells whether there is no room for a column.
func (r *rows) hides(name string, width int) bool { return name == "JOB" && width < narrow }

func (r *rows) row(cells []string, width int) (row table.Row) {
	for i, cell := range cells {
		if !r.hides(r.names[i], width) {
			row = append(row, cell)
		}
	}
	return row
}

// room is what the other columns and the lines between them leave.
func (r *rows) room(width int) int {
	left := width - len("|")
	for i, name := range r.names {
		if r.hides(name, width) {
			continue
		}
		left -= len("|  ") // a line and two spaces
		if name == "CAUSE" {
			continue
		}
		widest := len(name)
		for _, cells := range r.cells {
			widest = max(widest, pretty.StringWidth(cells[i]))
		}
		left -= widest
	}
	return max(left, shortestWhy)
}

// pools names as many as fit, and counts the others.
func pools(names []string) string {
	if all := strings.Join(names, ", "); pretty.StringWidth(all) <= widestPool {
		return all
	}
	if len(names) == 1 {
		return names[0]
	}
	more := fmt.Sprintf(" +%d", len(names)-1)
	return pretty.Snip(names[0], widestPool-len(more), "…") + more
}

func none(f dlq.Filter) string {
	if f.IsZero() {
		return "no dead letters"
	}
	return "no dead letters match"
}

// failedTimes is how the judgement of a job begins, the same for each cause.
var failedTimes = regexp.MustCompile(`^failed \d+ times \(max_attempts\): `)

// why is the error as a table shows it.
func why(reason, said string) string {
	if said = failedTimes.ReplaceAllString(said, ""); said != "" {
		return said
	}
	return reason
}

// ago is how long ago something was, in one unit.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// thousands writes 4812 as 4,812.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
