//! Times as text: RFC 3339, with no fraction of a second or one of 3, 6 or 9 digits, as Protobuf's mapping has it. Years
//! of more than four digits, and those before the first, are written as ECMAScript reads them: `+012026-01-31`.

/// A day, by its number since 1970-01-01.
pub(super) fn date(days: i64) -> String {
    let (year, month, day) = civil(days);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        year => format!("{year:+07}-{month:02}-{day:02}"),
    }
}

/// A time of the day, `seconds` of which have passed.
pub(super) fn time_of_day(seconds: i64, nanos: u32) -> String {
    let fraction = match nanos {
        0 => String::new(),
        nanos if nanos % 1_000_000 == 0 => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos % 1_000 == 0 => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    };
    format!("{:02}:{:02}:{:02}{fraction}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A time, by the seconds since the epoch, without a zone.
pub(super) fn date_and_time(seconds: i64, nanos: u32) -> String {
    format!("{}T{}", date(seconds.div_euclid(DAY)), time_of_day(seconds.rem_euclid(DAY), nanos))
}

/// Year, month and day. Years are counted from March on, so that the day which comes now and then is their last: 400 of
/// them always have as many days.
fn civil(days: i64) -> (i64, i64, i64) {
    // Since 0000-03-01.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year_of_era + i64::from(month < 3), month, day)
}

pub(super) const DAY: i64 = 86_400;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn days_of_four_centuries_are_those_of_another_calendar() {
        for days in (0..146_097).step_by(13).chain(58..62) {
            let time = UNIX_EPOCH + Duration::from_secs(days * 86_400);
            let theirs = humantime::format_rfc3339_seconds(time).to_string();
            assert_eq!(format!("{}T00:00:00Z", date(days as i64)), theirs, "{days}");
            // The calendar is the same again after 400 years.
            let before = date(days as i64 - 146_097);
            assert_eq!(before[4..], theirs[4..10]);
            assert_eq!(before[..4].parse::<i64>().unwrap() + 400, theirs[..4].parse::<i64>().unwrap());
        }
    }

    #[test]
    fn years_that_are_far_away() {
        assert_eq!(date(-719_468), "0000-03-01");
        assert_eq!(date(-719_529), "-000001-12-31");
        assert_eq!(date(2_932_897), "+010000-01-01");
        assert_eq!(date_and_time(i64::MAX / 1_000, 807_000_000), "+292278994-08-17T07:12:55.807");
        date_and_time(i64::MAX, 0);
        date_and_time(i64::MIN, 0);
    }

    #[test]
    fn fractions_have_as_many_digits_as_they_need() {
        for (nanos, text) in
            [(0, ""), (7_000_000, ".007"), (7_000, ".000007"), (7, ".000000007"), (120_000_000, ".120")]
        {
            assert_eq!(time_of_day(86_399, nanos), format!("23:59:59{text}"));
        }
        assert_eq!(date_and_time(-1, 500_000_000), "1969-12-31T23:59:59.500");
    }
}
