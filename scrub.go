package dockerexec

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// scrubbedMark stands for what was taken out, as in net/url's redacted URLs.
const scrubbedMark = "xxxxx"

// scrubber takes secrets out of what engines and registries say: the credentials
// of one pull, and the user and query parts of any URL.
type scrubber struct {
	secrets []string       // taken out everywhere, even inside a word
	words   *regexp.Regexp // taken out only as whole words; nil: none
}

// secretLength is the least length of a secret that is taken out even within a
// word. A shorter one would garble texts that have nothing to do with it.
const secretLength = 6

// newScrubber makes a scrubber for the credentials in registryAuth, which has the form
// of the engine's header. If the header cannot be decoded, the scrubber takes out only
// the header itself.
func newScrubber(registryAuth string) scrubber {
	var s scrubber
	if registryAuth == "" {
		return s
	}
	var words []string
	addWord := func(secret string) {
		for _, form := range quotedForms(secret) {
			words = append(words, regexp.QuoteMeta(form))
		}
	}
	add := func(secret string) {
		switch {
		case len(secret) >= secretLength, !utf8.ValidString(secret): // a regular expression needs valid UTF-8
			s.secrets = append(append(s.secrets, url.QueryEscape(secret), url.PathEscape(secret)), quotedForms(secret)...)
		case secret != "":
			addWord(secret)
		}
	}
	add(registryAuth)
	fields := map[string]any{}
	var taken struct{ Username, Password string } // as for the engine, the keys may be in upper or lower case
	if data, err := decodeBase64(registryAuth); err == nil {
		_ = json.Unmarshal(data, &fields)
		_ = json.Unmarshal(data, &taken)
	}
	if taken.Username != "" {
		addWord(taken.Username)
		add(base64.StdEncoding.EncodeToString([]byte(taken.Username + ":" + taken.Password)))
	}
	for key, value := range fields {
		value, _ := value.(string)
		switch strings.ToLower(key) {
		case "username", "serveraddress", "email":
		case "auth":
			if pair, err := decodeBase64(value); err == nil {
				_, secret, _ := strings.Cut(string(pair), ":")
				add(secret)
			}
			add(value)
		default:
			add(value)
		}
	}
	slices.SortFunc(s.secrets, func(a, b string) int { return len(b) - len(a) }) // longest first: a shorter one may be part of a longer one
	s.secrets = slices.Compact(s.secrets)
	if len(words) > 0 {
		slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
		s.words = regexp.MustCompile(`(^|[^\w./@-])(?:` + strings.Join(words, "|") + `)($|[^\w./@-])`)
	}
	return s
}

// quotedForms returns secret as it is, and as it looks inside quotes. The quotes may be
// Go's, JSON's (with or without the escapes for HTML), or Go's around JSON's.
func quotedForms(secret string) []string {
	withinQuotes := func(text string) string { return text[1 : len(text)-1] }
	forms := []string{secret, withinQuotes(strconv.Quote(secret))}
	if !utf8.ValidString(secret) { // JSON has no form for it
		return forms
	}
	for _, forHTML := range []bool{true, false} {
		var text strings.Builder
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(forHTML)
		_ = encoder.Encode(secret) // a string always has a form
		form := withinQuotes(strings.TrimSuffix(text.String(), "\n"))
		forms = append(forms, form, withinQuotes(strconv.Quote(form)))
	}
	slices.Sort(forms)
	return slices.Compact(forms)
}

func decodeBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	return base64.RawURLEncoding.DecodeString(text)
}

// clean returns text without secrets and control characters, no longer than
// limit bytes.
func (s scrubber) clean(text string, limit int) string {
	for _, secret := range s.secrets {
		text = strings.ReplaceAll(text, secret, scrubbedMark)
	}
	if strings.ContainsAny(text, "/?") {
		text = anyURL.ReplaceAllStringFunc(text, cleanURL)
		text = anyQuery.ReplaceAllString(text, "")
	}
	if s.words != nil {
		for range 2 { // one pass misses the second of two words with one separator between them
			text = s.words.ReplaceAllString(text, "${1}"+scrubbedMark+"${2}")
		}
	}
	text = strings.ToValidUTF8(text, "\ufffd") // taking out a secret may have cut a character
	if strings.ContainsFunc(text, unicode.IsControl) {
		text = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, text)
	}
	if len(text) <= limit {
		return text
	}
	const dots = "…"
	end := limit - len(dots)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) + dots // a copy, because text may be large
}

var (
	// A URL ends where a space or a quote is, and nowhere else: query parts are
	// not always escaped.
	anyURL = regexp.MustCompile(`(?i)(?:[a-z][a-z0-9+.-]*:)?//[^\s"]+`)
	// A query without its URL.
	anyQuery = regexp.MustCompile(`\?[\w.~%+-]+=[^\s"]*`)
	port     = regexp.MustCompile(`:[0-9]*$`)
)

// cleanURL takes user and query out of a URL.
func cleanURL(text string) string {
	scheme, rest, _ := strings.Cut(text, "//")
	end := ""
	if strings.HasSuffix(rest, ":") || strings.HasSuffix(rest, ",") { // belongs to the sentence around the URL
		rest, end = rest[:len(rest)-1], rest[len(rest)-1:]
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i]
	}
	host, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndex(host, "@"); at >= 0 {
		rest = rest[at+1:]
	} else if at := strings.LastIndex(path, "@"); at >= 0 && strings.Contains(port.ReplaceAllString(host, ""), ":") && !strings.HasPrefix(host, "[") {
		rest = path[at+1:] // a password with a slash in it
	}
	return scheme + "//" + rest + end
}
