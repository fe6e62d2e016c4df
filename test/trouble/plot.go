package main

import (
	"fmt"
	"strings"
	"time"
)

// The plot, in its own units, and what it spans.
const (
	plotWidth, plotHeight         = 720, 280
	plotLeft, plotRight           = 40, 10
	plotTop, plotBottom           = 34, 28
	plotMost                      = 210 // calls at once
	plotEach                      = 20  // seconds between two marks
	plotColumns, plotRows float64 = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
)

// style has a ground of its own, as whoever shows the plot may not be of one
// mind with the browser on whether it is dark.
const style = `<style>
text { font: 12px sans-serif; fill: #57606a } .ground { fill: #fff } .grid { stroke: #e5e8eb }
.capacity { fill: none; stroke: #6e7781; stroke-width: 2; stroke-dasharray: 6 4 }
.limit { fill: none; stroke: #0969da; stroke-width: 2 } .done { fill: #1a7f37; fill-opacity: .22 }
.of-limit { fill: #0969da } .of-done { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1 } .ground { fill: #0d1117 } .grid { stroke: #262c34 } .capacity { stroke: #9198a1 }
.limit { stroke: #58a6ff } .done { fill: #3fb950; fill-opacity: .25 } .of-limit { fill: #58a6ff } .of-done { fill: #3fb950 }
}
</style>
`

// svg draws what the target could do, what limit workerd found, and what was
// done, all of them in calls at once.
func svg(samples []sample, service time.Duration) string {
	x := func(i int) float64 { return plotLeft + float64(i)*plotColumns/float64(len(samples)) }
	y := func(v float64) float64 { return plotTop + (1-min(v, plotMost)/plotMost)*plotRows }
	// A sample is that of the second which ends with it.
	line := func(of func(sample) float64) string {
		var points []string
		for i, m := range samples {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(i+1), y(of(m))))
		}
		return strings.Join(points, " ")
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="limit and capacity over time">`+"\n", plotWidth, plotHeight)
	b.WriteString(style)
	fmt.Fprintf(&b, `<rect class="ground" width="%d" height="%d" rx="6"/>`+"\n", plotWidth, plotHeight)
	for v := 0; v < plotMost; v += 50 {
		at := y(float64(v))
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%d</text>`+"\n",
			plotLeft, plotWidth-plotRight, at, at, plotLeft-6, at+4, v)
	}
	for i := 0; i < len(samples); i += plotEach {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d s</text>`+"\n", x(i), plotHeight-10, i)
	}
	done := line(func(m sample) float64 { return float64(m.goodput) * service.Seconds() })
	fmt.Fprintf(&b, `<polygon class="done" points="%.1f,%.1f %s %.1f,%.1f"/>`+"\n", x(1), y(0), done, x(len(samples)), y(0))
	fmt.Fprintf(&b, `<path class="capacity" d="%s"/>`+"\n", stairs(samples, x, y))
	fmt.Fprintf(&b, `<polyline class="limit" points="%s"/>`+"\n", line(func(m sample) float64 { return float64(m.limit) }))
	fmt.Fprintf(&b, `<text x="%d" y="20">calls at once:</text><text class="of-limit" x="%d" y="20">the limit workerd has found</text>`+
		`<text x="%d" y="20">- - what the target can take</text><text class="of-done" x="%d" y="20">what it has done well</text>`+"\n</svg>\n",
		plotLeft, plotLeft+90, plotLeft+270, plotLeft+460)
	return b.String()
}

// stairs is the capacity, which changes at once.
func stairs(samples []sample, x func(int) float64, y func(float64) float64) string {
	var path strings.Builder
	fmt.Fprintf(&path, "M%.1f,%.1f", x(0), y(float64(samples[0].capacity)))
	for i, m := range samples {
		if i > 0 && m.capacity != samples[i-1].capacity {
			fmt.Fprintf(&path, " H%.1f V%.1f", x(i), y(float64(m.capacity)))
		}
	}
	fmt.Fprintf(&path, " H%.1f", x(len(samples)))
	return path.String()
}
