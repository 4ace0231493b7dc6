package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// alertRule is a rule for Prometheus of the kinds that docs/operations.md has: a series
// that is above a number for some time, or one that has grown by more within some time.
type alertRule struct {
	name    string
	metric  string
	matches map[string]*regexp.Regexp // labels
	grown   time.Duration             // 0: the value counts, not its growth
	above   float64
	hold    time.Duration // "for"
}

var (
	rulesOfPage = regexp.MustCompile("(?s)\n## Alerts\n.*?\n```yaml\n(.*?)```")
	ruleOfPage  = regexp.MustCompile(`(?m)^ +- alert: (\w+)\n +expr: (.*)\n(?: +for: (\w+)\n)?`)
	ruleExpr    = regexp.MustCompile(`^(increase\()?(\w+)(?:\{([^}]*)\})?(?:\[(\w+)\]\))? > (\d+(?:\.\d+)?)$`)
	ruleLabel   = regexp.MustCompile(`^(\w+)(=~?)"([^"]*)"$`)
	sampleLine  = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)$`)
	sampleLabel = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// rulesText is what the page tells a reader to put into a file of rules.
func rulesText(t testing.TB) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	text := rulesOfPage.FindSubmatch(page)
	require.NotNil(t, text)
	return string(text[1])
}

func alertRules(t testing.TB) []alertRule {
	t.Helper()
	text := rulesText(t)
	var rules []alertRule
	for _, found := range ruleOfPage.FindAllStringSubmatch(text, -1) {
		expr := ruleExpr.FindStringSubmatch(found[2])
		require.NotNil(t, expr, "not of a kind that the test knows: %s", found[2])
		r := alertRule{name: found[1], metric: expr[2], matches: map[string]*regexp.Regexp{}}
		for _, text := range strings.FieldsFunc(expr[3], func(r rune) bool { return r == ',' }) {
			label := ruleLabel.FindStringSubmatch(text)
			require.NotNil(t, label, found[2])
			pattern := regexp.QuoteMeta(label[3])
			if label[2] == "=~" {
				pattern = label[3]
			}
			r.matches[label[1]] = regexp.MustCompile("^(?:" + pattern + ")$")
		}
		require.Equal(t, expr[1] != "", expr[4] != "", found[2])
		var err error
		for text, into := range map[string]*time.Duration{expr[4]: &r.grown, found[3]: &r.hold} {
			if text != "" {
				*into, err = time.ParseDuration(text)
				require.NoError(t, err)
			}
		}
		r.above, err = strconv.ParseFloat(expr[5], 64)
		require.NoError(t, err)
		rules = append(rules, r)
	}
	for _, r := range rules {
		require.LessOrEqual(t, r.grown, longestGrowth, r.name)
	}
	require.Len(t, rules, strings.Count(text, "- alert:"), "each rule is read")
	return rules
}

// samples are the values of a page in Prometheus' text, by series.
type samples map[string]float64

func parseSamples(t testing.TB, text string) samples {
	t.Helper()
	values := samples{}
	for line := range strings.SplitSeq(text, "\n") {
		if found := sampleLine.FindStringSubmatch(line); found != nil && !strings.HasPrefix(line, "#") {
			value, err := strconv.ParseFloat(found[3], 64)
			require.NoError(t, err, line)
			values[found[1]+"{"+found[2]+"}"] = value
		}
	}
	return values
}

// of picks the series of a rule.
func (s samples) of(r alertRule) samples {
	picked := samples{}
	for series, value := range s {
		name, labels, _ := strings.Cut(series, "{")
		if name != r.metric {
			continue
		}
		has := map[string]string{}
		for _, label := range sampleLabel.FindAllStringSubmatch(labels, -1) {
			has[label[1]] = label[2]
		}
		matches := true
		for label, pattern := range r.matches {
			matches = matches && pattern.MatchString(has[label])
		}
		if matches {
			picked[series] = value
		}
	}
	return picked
}

// longestGrowth is the longest time in which a rule looks for growth.
const longestGrowth = 10 * time.Minute

// alertWatch evaluates the rules as Prometheus does, on each scrape.
type alertWatch struct {
	rules   []alertRule
	scrapes []scrape
	since   map[string]time.Time // when a rule's condition began to hold, by name
	fired   map[string]bool      // those that have ever fired
}

type scrape struct {
	at     time.Time
	values samples
}

func newAlertWatch(t testing.TB) *alertWatch {
	return &alertWatch{rules: alertRules(t), since: map[string]time.Time{}, fired: map[string]bool{}}
}

// add evaluates the rules on what is scraped now, and returns the names of those that fire.
func (w *alertWatch) add(at time.Time, values samples) []string {
	w.scrapes = append(w.scrapes, scrape{at, values})
	w.scrapes = slices.DeleteFunc(w.scrapes, func(s scrape) bool { return at.Sub(s.at) > longestGrowth })
	firing := []string{}
	for _, r := range w.rules {
		if !w.holds(r) {
			delete(w.since, r.name)
			continue
		}
		since, began := w.since[r.name]
		if !began {
			w.since[r.name], since = at, at
		}
		if at.Sub(since) >= r.hold {
			firing = append(firing, r.name)
			w.fired[r.name] = true
		}
	}
	return firing
}

// holds says whether a rule's condition is true for one of its series.
func (w *alertWatch) holds(r alertRule) bool {
	now := w.scrapes[len(w.scrapes)-1]
	for series, value := range now.values.of(r) {
		if r.grown == 0 && value > r.above {
			return true
		}
		if r.grown > 0 {
			first := slices.IndexFunc(w.scrapes, func(s scrape) bool {
				_, has := s.values[series]
				return has && now.at.Sub(s.at) <= r.grown
			})
			if value-w.scrapes[first].values[series] > r.above {
				return true
			}
		}
	}
	return false
}

// names are the alerts that have fired.
func (w *alertWatch) names() []string { return slices.Sorted(maps.Keys(w.fired)) }

func TestAlertRulesAreThoseOfThePage(t *testing.T) {
	rules := alertRules(t)
	var names []string
	for _, r := range rules {
		names = append(names, fmt.Sprint(r.name, " ", r.metric, " ", r.above, " ", r.grown, " ", r.hold))
	}
	assert.Equal(t, []string{
		"EngineAway dockerexec_event_stream_away 0 0s 20s",
		"EngineEventsRefused dockerexec_event_stream_away 0 0s 5m0s",
		"EngineTimesOut dockerexec_engine_requests_total 0 5m0s 0s",
		"PullsFail dockerexec_pull_attempts_total 0 10m0s 0s",
		"TasksFail dockerexec_operation_duration_seconds_count 2.5 10m0s 0s",
		"StopsFail dockerexec_engine_requests_total 1.5 10m0s 0s",
		"ContainerNotInspected dockerexec_container_uninspected 0 0s 1m0s",
		"ChecksStopped dockerexec_container_unchecked_total 0 10m0s 0s",
		"ContainersLeftBehind dockerexec_orphan_containers 0 0s 0s",
	}, names)
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is missing: Prometheus itself does not read the rules")
		return
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	require.NoError(t, os.WriteFile(file, []byte(rulesText(t)), 0o600))
	out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "SUCCESS: 9 rules found")
}
