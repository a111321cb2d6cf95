// Package policy says what people want kept, as pure functions of points and times: the same input gives the same answer,
// and nothing is read, written or asked of a clock.
//
// [Schedule] says when intervals begin, [Window] when data may cross the network, [Bandwidth] how much of it, [Lookup] which
// points an interval takes, and [Retention] which of a machine's points are kept. Their calendar is that of a time zone: a
// day begins at its first instant there, whatever a clock change does around midnight.
package policy
