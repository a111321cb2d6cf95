// Package policy says what people want kept, as pure functions of points and times: the same input gives the same answer,
// and nothing is read, written or asked of a clock.
//
// [Retention] is the rules by which points of one machine are kept. Its calendar is that of a time zone: a day begins at
// its first instant there, whatever a clock change does around midnight.
package policy
