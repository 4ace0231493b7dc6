package dockerexec

import (
	"slices"
	"testing"
)

// compare measures ours and a baseline in turn, which each return what one unit
// costs, and reports both and their ratio. Of each the best value but a tenth
// counts: others use the machine too. A ratio above limit fails the benchmark.
//
// hack/bench.sh makes a table of what the benchmarks report so.
func compare(b *testing.B, unit string, limit float64, ours, baseline func() float64) {
	b.Helper()
	compareAt(b, 0.1, unit, limit, ours, baseline)
}

// compareCounts is compare for what others on the machine do not change, such as
// bytes and requests: the median counts.
func compareCounts(b *testing.B, unit string, limit float64, ours, baseline func() float64) {
	b.Helper()
	compareAt(b, 0.5, unit, limit, ours, baseline)
}

func compareAt(b *testing.B, quantile float64, unit string, limit float64, ours, baseline func() float64) {
	b.Helper()
	var values [2][]float64
	for b.Loop() {
		values[0] = append(values[0], ours())
		values[1] = append(values[1], baseline())
	}
	for _, v := range values {
		slices.Sort(v)
	}
	at := int(quantile * float64(len(values[0])))
	report(b, unit, limit, values[0][at], values[1][at])
}

func report(b *testing.B, unit string, limit, ours, baseline float64) {
	b.Helper()
	b.ReportMetric(ours, unit)
	b.ReportMetric(baseline, unit+"-baseline")
	b.ReportMetric(ours/baseline, "ratio")
	b.ReportMetric(0, "ns/op")
	if ours <= 0 || baseline <= 0 || ours/baseline > limit {
		b.Errorf("%.0f %s, %.2f times the baseline of %.0f; the limit is %.2f", ours, unit, ours/baseline, baseline, limit)
	}
}
