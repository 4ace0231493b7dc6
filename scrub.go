package dockerexec

import (
	stderrors "errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	engineapi "github.com/docker/docker/client"
	"github.com/moby/swarmkit/v2/agent/exec"
)

// credentialOption begins the option that holds the payload of a credential spec.
const credentialOption = "credentialspec="

// scrubbedMark stands for what was taken out, as in net/url's redacted URLs.
const scrubbedMark = "xxxxx"

// scrubber takes secrets out of what engines and registries say: values that it was
// given, and the user and query parts of any URL. The zero value knows no values.
type scrubber struct {
	secrets []secretText // longest first: a shorter one may be part of a longer one
}

// secretText is one form of a secret.
type secretText struct {
	text  string
	alone bool // taken out only where it is a word of its own
}

// clean returns text without secrets and control characters, no longer than
// limit bytes.
func (s scrubber) clean(text string, limit int) string {
	text = strings.ToValidUTF8(s.hideIn(text, ""), "\ufffd") // taking out a secret may have cut a character
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

// hideIn returns text without secrets. ownURL is the URL of the client's own request, or
// empty. That URL keeps its query.
func (s scrubber) hideIn(text, ownURL string) string {
	// An engine that refuses a credential spec quotes the whole option with its payload.
	if before, _, quotes := strings.Cut(text, credentialOption+"raw://"); quotes {
		text = before + credentialOption + "raw://(the payload is not shown)"
	}
	for _, secret := range s.secrets {
		if secret.alone {
			text = replaceAlone(text, secret.text)
		} else {
			text = strings.ReplaceAll(text, secret.text, scrubbedMark)
		}
	}
	// The regular expressions are slow on a long text, such as one with a stack trace. They match
	// within a word.
	text = inWords(text, "=", func(word string) string {
		if !mayHavePassword(word) {
			return word
		}
		// A volume that exists may have a password that is not the task's, and so is not in s.secrets.
		return anyPassword.ReplaceAllStringFunc(word, func(pair string) string {
			key, value, _ := strings.Cut(pair, "=")
			if strings.Trim(value, "*") == "" { // the engine shows only asterisks
				return pair
			}
			return key + "=" + scrubbedMark
		})
	})
	if !strings.Contains(text, "//") && !strings.Contains(text, "?") { // neither a URL nor a query
		return text
	}
	parts := []string{text}
	if ownURL != "" {
		parts = strings.Split(text, ownURL)
	}
	for i, part := range parts {
		part = inWords(part, "//", func(word string) string { return anyURL.ReplaceAllStringFunc(word, cleanURL) })
		parts[i] = inWords(part, "?", func(word string) string { return anyQuery.ReplaceAllString(word, "") })
	}
	return strings.Join(parts, ownURL)
}

// wordEnds are the characters at which URLs, queries and passwords end.
const wordEnds = " \t\n\f\r\""

// inWords returns text with each word changed that has part in it. A word ends at wordEnds.
func inWords(text, part string, change func(word string) string) string {
	var result strings.Builder
	copied := 0
	for {
		at := strings.Index(text[copied:], part)
		if at < 0 {
			break
		}
		at += copied
		begin, end := copied+strings.LastIndexAny(text[copied:at], wordEnds)+1, len(text)
		if i := strings.IndexAny(text[at:], wordEnds); i >= 0 {
			end = at + i
		}
		result.WriteString(text[copied:begin])
		result.WriteString(change(text[begin:end]))
		copied = end
	}
	if copied == 0 {
		return text
	}
	return result.String() + text[copied:]
}

// mayHavePassword reports whether anyPassword may match in the word: whether one of its keys
// stands before a "=".
func mayHavePassword(word string) bool {
	for before := range strings.SplitSeq(word, "=") {
		before = before[max(0, len(before)-len("passphrase")):]
		for _, key := range passwordKeys {
			if strings.HasSuffix(strings.ToLower(before), key) {
				return true
			}
		}
		if strings.ContainsFunc(before, func(r rune) bool { return r >= utf8.RuneSelf }) { // it may fold to a letter
			return true
		}
	}
	return false
}

// replaceAlone takes word out where it stands alone.
func replaceAlone(text, word string) string {
	var result strings.Builder
	copied := 0
	for from := 0; ; {
		at := strings.Index(text[from:], word)
		if at < 0 {
			break
		}
		at += from
		if end := at + len(word); standsAlone(text[:at], text[end:]) {
			result.WriteString(text[copied:at] + scrubbedMark)
			copied, from = end, end
		} else {
			from = at + 1
		}
	}
	if copied == 0 {
		return text
	}
	return result.String() + text[copied:]
}

// standsAlone gets what is before and after a text. It reports whether the text is a word, and
// not a part of a longer word, name or path.
func standsAlone(before, after string) bool {
	left, _ := utf8.DecodeLastRuneInString(before)
	if (isWordRune(left) || strings.ContainsRune("./@-", left)) && !endsInEscape.MatchString(before[max(0, len(before)-6):]) {
		return before == ""
	}
	right, size := utf8.DecodeRuneInString(after)
	if right == '.' { // the end of a sentence, or a dot within a name
		next, _ := utf8.DecodeRuneInString(after[size:])
		return after[size:] == "" || !isWordRune(next)
	}
	return after == "" || !isWordRune(right) && !strings.ContainsRune("/-", right)
}

func isWordRune(r rune) bool {
	return r == '_' || r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

var (
	// A URL ends where a space or a quote is, and nowhere else: query parts are
	// not always escaped.
	anyURL = regexp.MustCompile(`(?i)(?:[a-z][a-z0-9+.-]*:)?//[^\s"]+`)
	// A query that stands without a URL before it.
	anyQuery = regexp.MustCompile(`\?[\w.~%+-]+=[^\s"]*`)
	port     = regexp.MustCompile(`:[0-9]*$`)
	// A password among the options of a mount.
	anyPassword = regexp.MustCompile(`(?i)(?:password|passwd|passphrase|secret|token|\bpass|\bpwd)=[^\s,;&"'\\]*[^\s,;&"'\\:.]`)
	// The keys of anyPassword.
	passwordKeys = []string{"password", "passwd", "passphrase", "secret", "token", "pass", "pwd"}
	// An escaped character of Go, JSON or a URL. Its last letter belongs to the escape, not
	// to the word after it.
	endsInEscape = regexp.MustCompile(`(?:\\[abfnrtv]|\\x[[:xdigit:]]{2}|\\u[[:xdigit:]]{4}|%[[:xdigit:]]{2})$`)
)

// cleanURL takes the user, the query and the fragment out of a URL.
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

// scrubbedError stands for a raw error that shows a secret. Its text is the raw error's
// text without the secret. errors.Is finds all classes and sentinels of the raw error.
// errors.As finds only the parts of the raw error that show no secret. There is no Unwrap,
// so nobody gets the raw error itself.
type scrubbedError struct {
	text  string
	raw   func() error // a function, so that printing the fields does not show the raw error
	clean []error      // the parts of the raw error that show no secret
}

// nobodyThere is the beginning of the client's error if no engine listens on the socket.
const nobodyThere = "Cannot connect to the Docker daemon at unix://"

// hide returns err if no part of its tree shows a secret. Otherwise it returns a
// scrubbedError.
func (s scrubber) hide(err error) error {
	if err == nil {
		return nil
	}
	// This error comes at each try while the engine is away. It can hold no secret, and
	// to clean it each time would cost much CPU time.
	if path, found := strings.CutPrefix(err.Error(), nobodyThere); found && engineapi.IsErrConnectionFailed(err) {
		if path, found = strings.CutSuffix(path, ". Is the docker daemon running?"); found && !strings.ContainsAny(path, "@=%? ") {
			return err
		}
	}
	var ownURL string
	var request *url.Error
	if stderrors.As(err, &request) {
		ownURL = request.URL
	}
	clean, whole := s.cleanParts(err, ownURL)
	if whole {
		return err
	}
	return &scrubbedError{text: s.hideIn(err.Error(), ownURL), raw: func() error { return err }, clean: clean}
}

// cleanParts returns the largest parts of err's tree that show no secret. whole says
// that err itself is such a part.
func (s scrubber) cleanParts(err error, ownURL string) (clean []error, whole bool) {
	whole = s.isClean(err, ownURL)
	for _, child := range behind(err) {
		parts, all := s.cleanParts(child, ownURL)
		whole = whole && all
		clean = append(clean, parts...)
	}
	if whole {
		return []error{err}, true
	}
	return clean, false
}

// isClean reports whether err's own text shows no secret, also in the format %+v.
func (s scrubber) isClean(err error, ownURL string) bool {
	text := err.Error()
	if s.hideIn(text, ownURL) != text {
		return false
	}
	if _, special := err.(fmt.Formatter); special {
		text = fmt.Sprintf("%+v", err)
		return s.hideIn(text, ownURL) == text
	}
	return true
}

// behind returns what err wraps.
func behind(err error) []error {
	switch e := err.(type) { //nolint:errorlint // the tree itself is walked
	case interface{ Unwrap() []error }:
		return slices.DeleteFunc(slices.Clone(e.Unwrap()), func(child error) bool { return child == nil })
	case interface{ Unwrap() error }:
		if child := e.Unwrap(); child != nil {
			return []error{child}
		}
	case interface{ Cause() error }:
		if child := e.Cause(); child != nil {
			return []error{child}
		}
	}
	return nil
}

func (e *scrubbedError) Error() string { return e.text }

// Is reports whether target is in the tree of the raw error, or is the class of the raw
// error.
func (e *scrubbedError) Is(target error) bool {
	if target == nil {
		return false
	}
	raw := e.raw()
	return stderrors.Is(raw, target) || target == knownClass(raw)
}

// As looks for target in the parts that show no secret.
func (e *scrubbedError) As(target any) bool {
	for _, part := range e.clean {
		if stderrors.As(part, target) {
			return true
		}
	}
	return false
}

// Temporary is what exec.IsTemporary asks.
func (e *scrubbedError) Temporary() bool { return exec.IsTemporary(e.raw()) }

// rawError returns the engine's own error behind err, or err. It is for classifiers and
// must not be shown.
func rawError(err error) error {
	var scrubbed *scrubbedError
	for stderrors.As(err, &scrubbed) {
		err = scrubbed.raw()
	}
	return err
}

// rawText returns the text of err as it was before hide took out the secrets. It is for
// classifiers and must not be shown.
func rawText(err error) string {
	text := err.Error()
	var scrubbed *scrubbedError
	if stderrors.As(err, &scrubbed) {
		text = strings.Replace(text, scrubbed.text, rawText(scrubbed.raw()), 1)
	}
	return text
}
