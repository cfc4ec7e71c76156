/** File in a data directory of ours: holds the password of the superuser, and says that the directory is whole. */
export const PASSWORD_FILE = "tributary.password";
