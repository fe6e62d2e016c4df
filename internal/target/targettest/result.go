package targettest

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/workerd/workerd/internal/job"
)

// maxErrorText bounds the error of a Result, as it becomes a log field and a
// header of the dead letter.
const maxErrorText = 1024

// checkResult says what is wrong with the form of a Result.
func checkResult(r job.Result, secrets []string) error {
	switch {
	case r.Class > job.Ignored:
		return fmt.Errorf("a target has no business with the class %d", r.Class)
	case !slices.Contains(job.Reasons(), r.Reason):
		return fmt.Errorf("reason %q is not in the closed set", r.Reason)
	case r.RetryAfter < 0:
		return fmt.Errorf("negative Retry-After %s", r.RetryAfter)
	case (r.Class == job.Success) != (r.Err == nil):
		return fmt.Errorf("class %s with the error %s", r.Class, fmt.Sprint(r.Err))
	case r.Err == nil:
		return nil
	}
	return checkText(r.Err.Error(), secrets)
}

func checkText(text string, secrets []string) error {
	if text == "" || len(text) > maxErrorText || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("the error text is not one line of 1 to %d visible bytes: %.100q", maxErrorText, text)
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			return fmt.Errorf("the error text gives a secret away: %q", text)
		}
	}
	return nil
}
