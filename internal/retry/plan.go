package retry

import "time"

// Plan is how a loop would go if every try ended in the same way.
type Plan struct {
	// Tries it would make, and the Waits between them.
	Tries int
	Waits []time.Duration
	// Stop and Rest are as [Loop.Do] would return them.
	Stop Stop
	Rest time.Duration
}

// Plan says what Do would do if every try ended at once with v, breaker and
// budget permitting, within a time limit, and for a random number u in [0, 1) at
// every wait. It is pure.
func (l *Loop) Plan(v Verdict, limit time.Duration, u float64) (p Plan) {
	for passed := time.Duration(0); ; {
		p.Tries++
		delay := max(l.Policy.Delay(p.Tries-1, u), hinted(v.Hint, u))
		switch {
		case !v.Again:
			p.Stop = Final
		case p.Tries >= l.MaxAttempts:
			p.Stop = Attempts
		case v.Pushback:
			p.Stop = Pushback
		case delay > l.Policy.limit():
			p.Stop, p.Rest = Handoff, delay
		case limit-passed < delay+minTry:
			p.Stop, p.Rest = Deadline, delay
		default:
			passed += delay
			p.Waits = append(p.Waits, delay)
			continue
		}
		return p
	}
}
