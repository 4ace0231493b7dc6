// Package chart draws measurements as SVG: what the drawings of docs/ have in common.
package chart

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Begin writes the head of a drawing on a white ground, with its title and a note.
func Begin(svg *strings.Builder, width, height, left int, title, note string) {
	fmt.Fprintf(svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(svg, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	Text(svg, left, 26, "start", "17", title)
	Text(svg, left, 48, "start", "12", note)
}

// RoundStep is the distance of an axis' marks: 1, 2 or 5 times a power of ten, so that
// there are at most six, and at least 1. The greatest value is most.
func RoundStep(most float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(max(most, 5)/5)))
	for _, step := range []float64{1, 2, 5} {
		if most <= 5*step*power {
			return step * power
		}
	}
	return 10 * power
}

// Text writes a text at a point. anchor and size are SVG's.
func Text(svg *strings.Builder, x, y int, anchor, size, what string) {
	fmt.Fprintf(svg, `<text x="%d" y="%d" text-anchor="%s" font-size="%s" fill="#202020">%s</text>`+"\n", x, y, anchor, size, html.EscapeString(what))
}
